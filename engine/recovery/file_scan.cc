#include "engine/recovery/file_scan.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "engine/base/crc32c.h"

namespace valfs::recovery {
namespace {

using log::GroupHeader;
using log::kBlock;
using log::kFirstGroupOffset;
using log::round_up;

constexpr uint64_t kWindow = 1 << 20;  // read at a time while looking for the next group

std::optional<uint32_t> parse_hex(const std::string& text, size_t digits) {
  uint32_t value = 0;
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value, 16);
  if (text.size() != digits || result.ec != std::errc() || result.ptr != end) return std::nullopt;
  return value;
}

// A file whose own header is damaged still holds groups that name file and epoch.
std::optional<log::Epoch> epoch_from_groups(storage::File& file, const log::VolumeId& volume,
                                            log::FileId id, uint64_t size) {
  bool unreadable = false;
  for (uint64_t offset = kFirstGroupOffset; offset + kBlock <= size; offset += kBlock) {
    const auto block = read_stretch(file, offset, offset + kBlock, unreadable);
    GroupHeader header;
    std::memcpy(&header, block.data(), sizeof header);
    if (header.magic != GroupHeader::kMagic || header.file != id) continue;
    const log::Salt salt{volume.salt(), id, header.epoch};
    if (log::decode_group_header(block, salt, offset)) return header.epoch;
  }
  return std::nullopt;
}

// Looks at every block of [from, to) for the header of a group.
uint64_t find_group(storage::File& file, const log::Salt& salt, uint64_t from, uint64_t to,
                    bool& unreadable) {
  for (uint64_t window = from; window < to; window += kWindow) {
    const uint64_t end = std::min(window + kWindow, to);
    const auto bytes = read_stretch(file, window, end, unreadable);
    for (uint64_t at = 0; at + kBlock <= bytes.size(); at += kBlock) {
      if (log::decode_group_header(std::span(bytes).subspan(at), salt, window + at)) {
        return window + at;
      }
    }
  }
  return to;
}

// Splits a stretch without groups: what is zeros at its end was never written.
void note_stretch(FileScan& scan, const log::LogFileRef& file, uint64_t begin, uint64_t end,
                  const ScanVisitor& visitor) {
  while (end > begin) {
    const uint64_t from = end > begin + kWindow ? end - kWindow : begin;
    const auto bytes = read_stretch(*file->file, from, end, scan.unreadable);
    const auto last =
        std::find_if(bytes.rbegin(), bytes.rend(), [](std::byte b) { return b != std::byte{0}; });
    if (last != bytes.rend()) {
      const auto used = static_cast<uint64_t>(bytes.rend() - last);
      scan.stretches.push_back({file, begin, std::min(end, from + round_up(used, kBlock))});
      if (visitor.stretch && !visitor.stretch(scan.stretches.back())) scan.stopped = true;
      return;
    }
    end = from;
  }
}

std::optional<FoundGroup> group_at(FileScan& scan, const log::LogFileRef& file,
                                   const log::Salt& salt, uint64_t offset, uint64_t to,
                                   const ScanVisitor& visitor) {
  const auto visit = [&](const FoundGroup& group, const log::GroupContents& contents) {
    if (visitor.group && !visitor.group(group, contents)) scan.stopped = true;
  };
  if (offset + kBlock > to) return std::nullopt;
  auto image = read_stretch(*file->file, offset, offset + kBlock, scan.unreadable);
  const auto header = log::decode_group_header(image, salt, offset);
  if (!header) return std::nullopt;
  FoundGroup group;
  group.file = file;
  group.offset = offset;
  group.length = round_up(header->length, kBlock);
  group.header = *header;
  if (offset + group.length > to) {  // cut off: not whole
    visit(group, {});
    return group;
  }
  if (group.length > kBlock) {
    const auto rest =
        read_stretch(*file->file, offset + kBlock, offset + group.length, scan.unreadable);
    image.insert(image.end(), rest.begin(), rest.end());
  }
  const auto contents = log::read_group(image, *header, salt, offset);
  group.whole = contents.whole;
  for (const auto& entry : contents.records) {
    const log::Record& record = entry.found.record;
    group.highest_object = std::max(group.highest_object, record.id);
    if (record.type == log::RecordType::kRetired && record.sequence > scan.retired_sequence) {
      scan.retired_sequence = record.sequence;
      scan.retired.assign(record.body.begin(), record.body.end());
    }
  }
  for (const auto& lost : contents.lost) {
    group.highest_object = std::max(group.highest_object, lost.id);
  }
  visit(group, contents);
  return group;
}

}  // namespace

std::vector<std::byte> read_stretch(storage::File& file, uint64_t begin, uint64_t end,
                                    bool& unreadable) {
  std::vector<std::byte> bytes(end - begin);
  if (const auto got = file.read(begin, bytes)) {
    // Behind the end of the file there is nothing, which is what zeros say.
    std::fill(bytes.begin() + static_cast<ptrdiff_t>(*got), bytes.end(), std::byte{0});
    return bytes;
  }
  // An error is not the end of the file: find out which blocks cannot be read.
  for (uint64_t at = begin; at < end; at += kBlock) {
    const auto block = std::span(bytes).subspan(at - begin, std::min(kBlock, end - at));
    const auto got = file.read(at, block);
    unreadable |= !got;
    std::fill(block.begin() + static_cast<ptrdiff_t>(got.value_or(0)), block.end(), std::byte{0});
  }
  return bytes;
}

Result<std::vector<log::FileId>> list_log_files(storage::Storage& storage) {
  std::vector<log::FileId> ids;
  VALFS_ASSIGN(const auto firsts, storage.list("wal"));
  for (const std::string& first : firsts) {
    if (!parse_hex(first, 2)) continue;
    VALFS_ASSIGN(const auto seconds, storage.list("wal/" + first));
    for (const std::string& second : seconds) {
      if (!parse_hex(second, 2)) continue;
      const std::string directory = "wal/" + first + "/" + second;
      VALFS_ASSIGN(const auto names, storage.list(directory));
      for (const std::string& name : names) {
        const auto id = parse_hex(name, 8);
        if (id && log::log_file_path(*id) == directory + "/" + name) ids.push_back(*id);
      }
    }
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

Result<log::LogFileRef> open_log_file(storage::Storage& storage, const log::VolumeId& volume,
                                      log::FileId id) {
  auto log_file = std::make_shared<log::LogFile>();
  log_file->id = id;
  VALFS_ASSIGN(log_file->file, storage.open(log::log_file_path(id), storage::OpenMode::kReadWrite));
  VALFS_ASSIGN(const auto info, log_file->file->info());
  log_file->size = info.size;

  bool unreadable = false;
  const auto block = read_stretch(*log_file->file, 0, kBlock, unreadable);
  log::LogFileHeader header;
  std::memcpy(&header, block.data(), sizeof header);
  const auto checked = log::bytes_of(header).first(offsetof(log::LogFileHeader, crc));
  if (header.magic == log::LogFileHeader::kMagic && header.crc == crc32c(checked) &&
      header.file == id && header.volume == volume) {
    log_file->epoch = header.epoch;
    return log_file;
  }
  const auto epoch = epoch_from_groups(*log_file->file, volume, id, info.size);
  if (!epoch) return log::LogFileRef();
  log_file->epoch = *epoch;
  return log_file;
}

FileScan scan_file(const log::LogFileRef& file, const log::Salt& salt, uint64_t from, uint64_t to,
                   const ScanVisitor& visitor) {
  FileScan scan;
  uint64_t offset = from;
  while (offset + kBlock <= to && !scan.stopped) {
    if (auto group = group_at(scan, file, salt, offset, to, visitor)) {
      offset += group->length;
      scan.groups.push_back(std::move(*group));
      continue;
    }
    const uint64_t next = find_group(*file->file, salt, offset + kBlock, to, scan.unreadable);
    note_stretch(scan, file, offset, next, visitor);
    offset = next;
  }
  return scan;
}

}  // namespace valfs::recovery
