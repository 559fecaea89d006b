#include "tests/fuzz/crcs.h"

#include <algorithm>
#include <cstring>

#include "engine/base/crc32c.h"
#include "engine/checkpoint/pages.h"
#include "engine/log/staging.h"
#include "engine/log/superblock.h"

namespace valfs::fuzz {
namespace {

using log::bytes_of;
using log::GroupHeader;
using log::RecordHeader;

template <class T>
T read(std::span<const std::byte> bytes, size_t at) {
  T value;
  std::memcpy(static_cast<void*>(&value), bytes.data() + at, sizeof value);
  return value;
}

template <class T>
void put(std::span<std::byte> bytes, size_t at, const T& value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// Returns how long the record at `at` is, its CRCs made right; 0 if there is none.
uint64_t fix_record(std::span<std::byte> bytes, uint64_t at, uint64_t end, const log::Salt& salt,
                    uint64_t offset, uint32_t& crc) {
  if (at + sizeof(RecordHeader) > end) return 0;
  auto header = read<RecordHeader>(bytes, at);
  if (header.magic != RecordHeader::kMagic) return 0;
  header.payload_length %= log::kMaxPayload + 1;
  const uint64_t crcs = log::payload_crc_count(header.payload_length) * sizeof(uint32_t);
  const uint64_t fixed = sizeof header + header.body_length + header.name_length;
  header.meta_length = static_cast<uint32_t>(log::round_up(fixed + crcs, log::kRecordAlignment));
  if (at + header.meta_length > end) return 0;
  const uint64_t payload = at + header.meta_length;
  for (uint64_t done = 0; done < header.payload_length; done += log::kPayloadChunk) {
    const uint64_t length = std::min<uint64_t>(log::kPayloadChunk, header.payload_length - done);
    if (payload + done + length > end) break;
    put(bytes, at + fixed + done / log::kPayloadChunk * sizeof(uint32_t),
        crc32c(bytes.subspan(payload + done, length)));
  }
  put(bytes, at, header);
  header.crc = log::salted_crc(salt, offset + at, bytes.subspan(at + 4, header.meta_length - 4));
  put(bytes, at, header);
  crc = header.crc;
  return log::round_up(header.meta_length + header.payload_length, log::kRecordAlignment);
}

}  // namespace

std::vector<std::byte> Input::bytes(size_t count) {
  const auto taken = left_.first(std::min(count, left_.size()));
  left_ = left_.subspan(taken.size());
  std::vector<std::byte> result(taken.begin(), taken.end());
  result.resize(count);
  return result;
}

void fix_group(std::span<std::byte> image, const log::Salt& salt, uint64_t offset) {
  if (image.size() < sizeof(GroupHeader)) return;
  auto header = read<GroupHeader>(image, 0);
  header.magic = GroupHeader::kMagic;
  header.version = log::kFormatVersion;
  header.volume_salt = salt.volume;
  header.file = salt.file;
  header.epoch = salt.epoch;
  const uint64_t room = image.size() - sizeof header;
  header.directory = static_cast<uint32_t>(sizeof header +
                                           (header.directory - sizeof header) % (room + 1) / 8 * 8);
  header.record_count = static_cast<uint32_t>(std::min<uint64_t>(
      header.record_count, (image.size() - header.directory) / sizeof(log::DirectoryEntry)));
  header.records_digest = 0;
  for (uint64_t at = sizeof header; at < header.directory;) {
    uint32_t crc = 0;
    const uint64_t length = fix_record(image, at, header.directory, salt, offset, crc);
    if (length > 0) header.records_digest = crc32c(bytes_of(crc), header.records_digest);
    at += std::max<uint64_t>(length, log::kRecordAlignment);
  }
  const uint64_t directory = header.record_count * sizeof(log::DirectoryEntry);
  header.length = static_cast<uint32_t>(header.directory + directory);
  header.directory_crc =
      log::salted_crc(salt, offset + header.directory, image.subspan(header.directory, directory));
  header.crc = log::salted_crc(salt, offset, bytes_of(header).first(offsetof(GroupHeader, crc)));
  put(image, 0, header);
}

void fix_log_file(std::span<std::byte> file) {
  if (file.size() < log::kBlock) return;
  auto head = read<log::LogFileHeader>(file, 0);
  head.crc = crc32c(bytes_of(head).first(offsetof(log::LogFileHeader, crc)));
  put(file, 0, head);
  const log::Salt salt{head.volume.salt(), head.file, head.epoch};
  for (uint64_t at = log::kFirstGroupOffset; at + log::kBlock <= file.size();) {
    const auto header = read<GroupHeader>(file, at);
    if (header.magic != GroupHeader::kMagic) {
      at += log::kBlock;
      continue;
    }
    const uint64_t length = std::clamp<uint64_t>(log::round_up(header.length, log::kBlock),
                                                 log::kBlock, file.size() - at);
    fix_group(file.subspan(at, length), salt, at);
    at += length / log::kBlock * log::kBlock;
  }
}

void fix_superblock(std::span<std::byte> copy) {
  if (copy.size() < sizeof(log::Superblock)) return;
  auto superblock = read<log::Superblock>(copy, 0);
  superblock.magic = log::Superblock::kMagic;
  superblock.crc = crc32c(bytes_of(superblock).first(offsetof(log::Superblock, crc)));
  put(copy, 0, superblock);
}

void fix_checkpoint(std::span<std::byte> file) {
  using checkpoint::PageHeader;
  uint32_t number = 0;
  for (uint64_t at = 0; at + sizeof(PageHeader) <= file.size();) {
    auto header = read<PageHeader>(file, at);
    const uint64_t room = file.size() - at - sizeof header;
    header.magic = PageHeader::kMagic;
    header.number = number++;
    header.length = static_cast<uint32_t>(std::min<uint64_t>(header.length, room));
    const auto page = file.subspan(at + sizeof header, header.length);
    header.crc = crc32c(page, crc32c(bytes_of(header).first(offsetof(PageHeader, crc))));
    put(file, at, header);
    at += sizeof header + header.length;
  }
}

void fix_staging_header(std::span<std::byte> memory) {
  if (memory.size() < sizeof(log::StagingHeader)) return;
  auto head = read<log::StagingHeader>(memory, 0);
  head.magic = log::StagingHeader::kMagic;
  head.crc = crc32c(bytes_of(head).first(offsetof(log::StagingHeader, crc)));
  put(memory, 0, head);
}

}  // namespace valfs::fuzz
