#include "engine/recovery/file_scan.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <memory>
#include <optional>
#include <set>

#include "engine/base/crc32c.h"
#include "engine/base/planted.h"

namespace valfs::recovery {
namespace {

using log::GroupHeader;
using log::kBlock;
using log::kFirstGroupOffset;
using log::round_up;

constexpr uint64_t kWindow = 1 << 20;  // read at a time

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

// Fills `bytes`, with zeros where there is nothing to read. Gives the blocks that cannot be read.
std::set<uint64_t> read_blocks(storage::File& file, uint64_t begin, std::span<std::byte> bytes) {
  // Behind the end of the file there is nothing, which is what zeros say.
  const auto ended_at = [&file](uint64_t offset) {
    const auto info = file.info();
    return info && offset >= info->size;
  };
  const auto got = file.read(begin, bytes);
  if (got && (*got == bytes.size() || ended_at(begin + *got))) {
    std::ranges::fill(bytes.subspan(*got), std::byte{0});
    return {};
  }
  // An error is not the end of the file: find out which blocks cannot be read.
  std::set<uint64_t> bad;
  for (uint64_t done = 0; done < bytes.size(); done += kBlock) {
    const auto block = bytes.subspan(done, std::min(kBlock, bytes.size() - done));
    const auto part = file.read(begin + done, block);
    const bool whole = part && (*part == block.size() || ended_at(begin + done + *part));
    if (!whole && !planted(Bug::kEioEndsLog)) bad.insert(begin + done);
    std::ranges::fill(block.subspan(whole ? *part : 0), std::byte{0});
  }
  return bad;
}

// Reads a file from its beginning to its end, a window at a time. Behind the end of the file, and
// where it cannot be read, there are zeros.
class Window {
 public:
  Window(storage::File& file, uint64_t limit, bool& unreadable)
      : file_(file), limit_(limit), unreadable_(unreadable) {}

  // Valid until the next call. Blocks that cannot be read are reported by who asks for them only.
  std::span<const std::byte> at(uint64_t begin, uint64_t end) {
    if (begin < begin_ || end > end_) fill(begin, end);
    const auto bad = bad_blocks_.lower_bound(round_up(begin + 1, kBlock) - kBlock);
    if (bad != bad_blocks_.end() && *bad < end) unreadable_ = true;
    return std::span(buffer_.get() + (begin - begin_), end - begin);
  }

 private:
  void fill(uint64_t begin, uint64_t end) {
    const uint64_t length = std::max(end, std::min(limit_, begin + kWindow)) - begin;
    if (length > capacity_) {
      buffer_ = std::make_unique_for_overwrite<std::byte[]>(length);
      capacity_ = length;
    }
    begin_ = begin;
    end_ = begin + length;
    bad_blocks_ = read_blocks(file_, begin, {buffer_.get(), length});
  }

  storage::File& file_;
  const uint64_t limit_;
  bool& unreadable_;
  std::unique_ptr<std::byte[]> buffer_;
  uint64_t capacity_ = 0;
  uint64_t begin_ = 0;
  uint64_t end_ = 0;
  std::set<uint64_t> bad_blocks_;
};

// What lies between two groups, or behind the last.
struct Between {
  uint64_t next = 0;      // where a group begins, or the end
  uint64_t used_end = 0;  // behind the last block that is not zeros; 0 if there is none
  bool footer = false;    // the first that is not zeros is a footer that was torn, or is damaged
};

// Looks at every block of [from, to) for the header of a group; there is none at `from`.
Between look_between(Window& window, const log::Salt& salt, uint64_t from, uint64_t to) {
  Between between;
  for (uint64_t at = from; at < to; at += kBlock) {
    const auto block = window.at(at, std::min(at + kBlock, to));
    if (used_bytes(block) == 0) continue;
    if (at > from && log::decode_group_header(block, salt, at)) {
      between.next = at;
      return between;
    }
    if (between.used_end == 0) between.footer = log::looks_like_footer(block);
    between.used_end = at + block.size();
  }
  between.next = to;
  return between;
}

// What the records of a group tell about it.
void note_contents(FileScan& scan, FoundGroup& group, const log::GroupContents& contents) {
  group.whole = contents.whole;
  group.rising = true;
  for (const auto& entry : contents.records) {
    const log::Record& record = entry.found.record;
    group.rising &= record.sequence > group.youngest_record;
    if (group.first_record == 0) group.first_record = record.sequence;
    group.youngest_record = std::max(group.youngest_record, record.sequence);
    group.inodes += record.type == log::RecordType::kInode ? 1 : 0;
    group.names += record.type == log::RecordType::kName ? 1 : 0;
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

// What has been checked need not be read again.
void note_gaps(FoundGroup& group, const log::GroupContents& contents) {
  for (const auto& entry : contents.records) {
    if (entry.found.payload_length < log::kSkippedPayload) continue;
    const uint64_t begin = group.offset + entry.offset + entry.found.meta_length;
    group.gaps.push_back(
        {static_cast<uint32_t>(begin / log::kRecordAlignment), entry.found.payload_length});
  }
}

std::optional<FoundGroup> group_at(FileScan& scan, Window& window, const log::Salt& salt,
                                   uint64_t offset, uint64_t to, const ScanVisitor& visitor) {
  const auto visit = [&](const FoundGroup& group, const log::GroupContents& contents) {
    if (visitor.group && !visitor.group(group, contents)) scan.stopped = true;
  };
  const auto header = log::decode_group_header(window.at(offset, offset + kBlock), salt, offset);
  if (!header) return std::nullopt;
  FoundGroup group;
  group.file = scan.file;
  group.offset = offset;
  group.length = round_up(header->length, kBlock);
  group.header = *header;
  if (offset + group.length > to) {  // cut off: not whole
    visit(group, {});
    return group;
  }
  const auto image = window.at(offset, offset + group.length);
  const auto contents = log::read_group(image, *header, salt, offset);
  note_contents(scan, group, contents);
  if (group.whole) note_gaps(group, contents);
  visit(group, contents);
  return group;
}

}  // namespace

std::vector<std::byte> read_stretch(storage::File& file, uint64_t begin, uint64_t end,
                                    bool& unreadable) {
  std::vector<std::byte> bytes(end - begin);
  if (!read_blocks(file, begin, bytes).empty()) unreadable = true;
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

std::optional<uint64_t> first_unreadable(storage::File& file, uint64_t begin, uint64_t end) {
  std::vector<std::byte> bytes(std::min(kWindow, end - std::min(begin, end)));
  for (uint64_t at = begin; at < end; at += kWindow) {
    const auto bad = read_blocks(file, at, std::span(bytes).first(std::min(kWindow, end - at)));
    if (!bad.empty()) return *bad.begin();
  }
  return std::nullopt;
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

void read_image(const FoundGroup& group, std::vector<std::byte>& image, bool& unreadable) {
  image.resize(group.length);
  const uint64_t end = group.offset + group.length;
  const auto read = [&](uint64_t from, uint64_t to) {
    const auto part = std::span(image).subspan(from - group.offset, to - from);
    if (!read_blocks(*group.file->file, from, part).empty()) unreadable = true;
  };
  uint64_t at = group.offset;
  for (const log::Gap& gap : group.gaps) {
    const uint64_t begin = gap.offset * log::kRecordAlignment;
    if (begin < at || begin + gap.length > end) continue;
    read(at, begin);
    at = begin + gap.length;
  }
  read(at, end);
}

std::optional<FileScan> scan_by_footer(const log::LogFileRef& file, const log::Salt& salt,
                                       const log::Footer& footer, uint64_t from) {
  FileScan scan;
  scan.file = file;
  scan.from = from;
  std::vector<std::byte> image;
  auto gap = footer.gaps.begin();
  uint64_t at = 0;
  for (const log::FooterGroup& entry : footer.groups) {
    FoundGroup group;
    group.file = file;
    group.offset = entry.offset * kBlock;
    group.length = entry.length * kBlock;
    group.gaps.assign(gap, gap + entry.gaps);
    gap += entry.gaps;
    if (group.offset < from) continue;
    read_image(group, image, scan.unreadable);
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
    note_contents(scan, group,
                  log::read_group(image, *header, salt, group.offset, log::Payloads::kSpared));
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
  Window window(*file->file, to, scan.unreadable);
  uint64_t offset = from;
  while (offset + kBlock <= to && !scan.stopped) {
    if (auto group = group_at(scan, window, salt, offset, to, visitor)) {
      offset += group->length;
      scan.groups.push_back(std::move(*group));
      continue;
    }
    // Behind a footer there are no groups.
    if (log::is_footer_block(window.at(offset, offset + kBlock), salt, offset)) break;
    if (planted(Bug::kFirstBadSumEndsLog)) break;
    const Between between = look_between(window, salt, offset, to);
    const bool last = between.next >= to;
    if (last && between.footer) break;
    if (!last || between.used_end > 0) {
      // What is zeros at the end of the last one was never written.
      scan.stretches.push_back({file, offset, last ? between.used_end : between.next, last});
      if (visitor.stretch && !visitor.stretch(scan.stretches.back())) scan.stopped = true;
    }
    offset = between.next;
  }
  return scan;
}

}  // namespace valfs::recovery
