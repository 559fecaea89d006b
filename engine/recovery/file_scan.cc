#include "engine/recovery/file_scan.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>

#include "engine/base/crc32c.h"
#include "engine/base/planted.h"

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

// How many bytes there are up to the last that is not zero. Most of a log file may be zeros.
size_t used_bytes(std::span<const std::byte> bytes) {
  constexpr size_t kStep = 256;
  static constexpr std::array<std::byte, kStep> kZeros{};
  size_t end = bytes.size();
  while (end >= kStep && std::memcmp(bytes.data() + end - kStep, kZeros.data(), kStep) == 0) {
    end -= kStep;
  }
  while (end > 0 && bytes[end - 1] == std::byte{0}) end--;
  return end;
}

// True if the first that is not zeros is a footer that was torn, or is damaged: a hint, with which
// nothing is lost.
bool is_rest_of_footer(const log::LogFileRef& file, uint64_t begin, uint64_t end,
                       bool& unreadable) {
  for (uint64_t window = begin; window < end; window += kWindow) {
    const auto bytes =
        read_stretch(*file->file, window, std::min(window + kWindow, end), unreadable);
    for (uint64_t at = 0; at < bytes.size(); at += kBlock) {
      const auto block = std::span(bytes).subspan(at, std::min(kBlock, bytes.size() - at));
      if (used_bytes(block) > 0) return log::looks_like_footer(block);
    }
  }
  return false;
}

// A stretch that no group follows: what is zeros at its end was never written.
void note_last_stretch(FileScan& scan, const log::LogFileRef& file, uint64_t begin, uint64_t end) {
  while (end > begin) {
    const uint64_t from = end > begin + kWindow ? end - kWindow : begin;
    const auto bytes = read_stretch(*file->file, from, end, scan.unreadable);
    if (const uint64_t used = used_bytes(bytes); used > 0) {
      scan.stretches.push_back({file, begin, std::min(end, from + round_up(used, kBlock)), true});
      return;
    }
    end = from;
  }
}

// What the records of a group tell about it.
void note_contents(FileScan& scan, FoundGroup& group, const log::GroupContents& contents) {
  group.whole = contents.whole;
  for (const auto& entry : contents.records) {
    const log::Record& record = entry.found.record;
    group.highest_object = std::max(group.highest_object, record.id);
    if (record.type == log::RecordType::kManifest) {
      scan.manifests.push_back({group.header.sequence, group.offset + entry.offset,
                                static_cast<uint32_t>(entry.found.total_length),
                                entry.payload_good});
    }
  }
  for (const auto& lost : contents.lost) {
    if (lost.type == log::RecordType::kManifest) {
      scan.manifests.push_back({group.header.sequence, group.offset + lost.offset, 0, false});
    }
    group.highest_object = std::max(group.highest_object, lost.id);
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
  note_contents(scan, group, contents);
  visit(group, contents);
  return group;
}

}  // namespace

std::vector<std::byte> read_stretch(storage::File& file, uint64_t begin, uint64_t end,
                                    bool& unreadable) {
  std::vector<std::byte> bytes(end - begin);
  // Behind the end of the file there is nothing, which is what zeros say.
  const auto ended_at = [&file](uint64_t offset) {
    const auto info = file.info();
    return info && offset >= info->size;
  };
  const auto got = file.read(begin, bytes);
  if (got && (*got == bytes.size() || ended_at(begin + *got))) {
    std::fill(bytes.begin() + static_cast<ptrdiff_t>(*got), bytes.end(), std::byte{0});
    return bytes;
  }
  // An error is not the end of the file: find out which blocks cannot be read.
  for (uint64_t at = begin; at < end; at += kBlock) {
    const auto block = std::span(bytes).subspan(at - begin, std::min(kBlock, end - at));
    const auto part = file.read(at, block);
    const bool whole = part && (*part == block.size() || ended_at(at + *part));
    unreadable |= !whole && !planted(Bug::kEioEndsLog);
    std::fill(block.begin() + static_cast<ptrdiff_t>(whole ? *part : 0), block.end(), std::byte{0});
  }
  return bytes;
}

bool is_all_zeros(storage::File& file, uint64_t begin, uint64_t end) {
  bool unreadable = false;
  for (uint64_t at = begin; at < end; at += kWindow) {
    const auto bytes = read_stretch(file, at, std::min(at + kWindow, end), unreadable);
    if (unreadable || used_bytes(bytes) > 0) return false;
  }
  return true;
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

std::vector<std::byte> read_image(const FoundGroup& group, bool& unreadable) {
  const uint64_t end = group.offset + group.length;
  if (group.gaps.empty()) return read_stretch(*group.file->file, group.offset, end, unreadable);
  std::vector<std::byte> image(group.length);
  const auto read = [&](uint64_t from, uint64_t to) {
    const auto bytes = read_stretch(*group.file->file, from, to, unreadable);
    std::copy(bytes.begin(), bytes.end(),
              image.begin() + static_cast<ptrdiff_t>(from - group.offset));
  };
  uint64_t at = group.offset;
  for (const log::Gap& gap : group.gaps) {
    const uint64_t begin = gap.offset * log::kRecordAlignment;
    if (begin < at || begin + gap.length > end) continue;
    read(at, begin);
    at = begin + gap.length;
  }
  read(at, end);
  return image;
}

std::optional<FileScan> scan_by_footer(const log::LogFileRef& file, const log::Salt& salt,
                                       const log::Footer& footer, uint64_t from) {
  FileScan scan;
  scan.file = file;
  scan.from = from;
  auto gap = footer.gaps.begin();
  uint64_t at = 0;
  for (const log::FooterGroup& entry : footer.groups) {
    FoundGroup group;
    group.file = file;
    group.offset = entry.offset * kBlock;
    group.length = entry.length * kBlock;
    group.by_footer = true;
    group.gaps.assign(gap, gap + entry.gaps);
    gap += entry.gaps;
    if (group.offset < from) continue;
    const auto image = read_image(group, scan.unreadable);
    const auto header = log::decode_group_header(image, salt, group.offset);
    const bool as_told = header && header->crc == entry.crc && header->sequence == entry.sequence &&
                         round_up(header->length, kBlock) == group.length &&
                         (at == 0 || at == group.offset);
    if (planted(Bug::kBelieveFooters) && !as_told) {
      at = group.offset + group.length;
      continue;
    }
    // What the cleaner has freed at the beginning of a file is not damage.
    if (!as_told && at == 0) continue;
    if (!as_told) return std::nullopt;
    group.header = *header;
    note_contents(scan, group, log::read_group(image, *header, salt, group.offset, true));
    if (!group.whole && !planted(Bug::kBelieveFooters)) return std::nullopt;
    at = group.offset + group.length;
    scan.groups.push_back(std::move(group));
  }
  if (scan.groups.empty() || at != footer.end) return std::nullopt;
  // In front of the first group that is left: freed, or lost.
  const uint64_t first = scan.groups.front().offset;
  if (first > from) scan.stretches.push_back({file, from, first, false});
  return scan;
}

Result<log::Manifest> read_manifest(const FileScan& scan, const log::Salt& salt,
                                    const FoundManifest& found) {
  std::vector<std::byte> bytes(found.length);
  VALFS_ASSIGN(const size_t got, scan.file->file->read(found.offset, bytes));
  const auto record = got == bytes.size() ? log::decode(bytes, salt, found.offset) : std::nullopt;
  if (!record || record->meta_length + record->payload_length > bytes.size()) {
    return fail(EIO, log::log_file_path(scan.file->id) + ": a manifest cannot be read");
  }
  const auto payload = std::span(bytes).subspan(record->meta_length, record->payload_length);
  return log::Manifest(found.group, record->record.a, static_cast<log::FileId>(record->record.b),
                       payload);
}

FileScan scan_file(const log::LogFileRef& file, const log::Salt& salt, uint64_t from, uint64_t to,
                   const ScanVisitor& visitor) {
  FileScan scan;
  scan.file = file;
  scan.from = from;
  uint64_t offset = from;
  while (offset + kBlock <= to && !scan.stopped) {
    if (auto group = group_at(scan, file, salt, offset, to, visitor)) {
      offset += group->length;
      scan.groups.push_back(std::move(*group));
      continue;
    }
    const auto block = read_stretch(*file->file, offset, offset + kBlock, scan.unreadable);
    if (log::is_footer_block(block, salt, offset)) break;  // behind it there are no groups
    if (planted(Bug::kFirstBadSumEndsLog)) break;
    const uint64_t next = find_group(*file->file, salt, offset + kBlock, to, scan.unreadable);
    if (next >= to && is_rest_of_footer(file, offset, to, scan.unreadable)) break;
    const size_t known = scan.stretches.size();
    if (next < to) {
      scan.stretches.push_back({file, offset, next, false});
    } else {
      note_last_stretch(scan, file, offset, next);
    }
    const bool found = scan.stretches.size() > known;
    if (found && visitor.stretch && !visitor.stretch(scan.stretches.back())) scan.stopped = true;
    offset = next;
  }
  return scan;
}

}  // namespace valfs::recovery
