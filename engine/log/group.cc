#include "engine/log/group.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/crc32c.h"
#include "engine/base/planted.h"
#include "engine/log/footer.h"

namespace valfs::log {
namespace {

constexpr size_t kHeaderCrcBytes = offsetof(GroupHeader, crc);

bool is_checked(Payloads payloads, uint64_t length) {
  if (payloads == Payloads::kSpared) return length < kSkippedPayload;
  return payloads == Payloads::kChecked;
}

GroupContents::Entry entry_at(std::span<const std::byte> bytes, uint64_t at, Payloads payloads,
                              FoundRecord found) {
  GroupContents::Entry entry;
  entry.offset = static_cast<uint32_t>(at);
  const uint64_t payload = at + found.meta_length;
  if (payload + found.payload_length <= bytes.size()) {
    found.record.payload = bytes.subspan(payload, found.payload_length);
    entry.payload_good =
        !is_checked(payloads, found.payload_length) || found.payload_is(found.record.payload);
  }
  entry.found = std::move(found);
  return entry;
}

// Appends the records of bytes[at, end) to `records`, searching at 8-byte steps after damage.
// Returns true if they follow each other without a gap.
bool walk_records(std::span<const std::byte> bytes, uint64_t at, uint64_t end, const Salt& salt,
                  uint64_t offset, Payloads payloads, std::vector<GroupContents::Entry>& records) {
  bool gapless = true;
  while (at + sizeof(RecordHeader) <= end) {
    auto found = decode(bytes.subspan(at, end - at), salt, offset + at);
    if (!found) {
      gapless = false;
      at += kRecordAlignment;
      continue;
    }
    const uint64_t length = found->total_length;
    records.push_back(entry_at(bytes, at, payloads, std::move(*found)));
    at += length;
  }
  return gapless && at == end;
}

std::vector<DirectoryEntry> read_directory(std::span<const std::byte> image,
                                           const GroupHeader& header, const Salt& salt,
                                           uint64_t offset, bool& good) {
  std::vector<DirectoryEntry> directory(header.record_count);
  const auto bytes = image.subspan(header.directory, directory.size() * sizeof(DirectoryEntry));
  good = salted_crc(salt, offset + header.directory, bytes) == header.directory_crc;
  if (!good) return {};
  if (!directory.empty()) std::memcpy(directory.data(), bytes.data(), bytes.size());
  return directory;
}

}  // namespace

void GroupSummary::add(const Record& record, uint32_t record_crc, uint32_t offset_in_group) {
  directory_.push_back({record.id, offset_in_group, record.type, {}});
  digest_ = crc32c(bytes_of(record_crc), digest_);
}

void GroupSummary::clear() {
  directory_.clear();
  digest_ = 0;
}

uint64_t group_length(uint64_t end, uint64_t record_count) {
  return round_up(end + record_count * sizeof(DirectoryEntry), kBlock);
}

GroupHeader seal_group(std::byte* image, uint64_t end, const GroupSummary& summary,
                       const GroupPlace& place, GroupSequence watermark, RecordSequence next_record,
                       ObjectId next_object) {
  const auto directory = std::as_bytes(std::span(summary.directory()));
  GroupHeader header;
  header.volume_salt = place.salt.volume;
  header.epoch = place.salt.epoch;
  header.file = place.salt.file;
  header.length = static_cast<uint32_t>(end + directory.size());
  header.record_count = summary.record_count();
  header.directory = static_cast<uint32_t>(end);
  header.stream = place.stream;
  header.sequence = place.sequence;
  header.watermark = watermark;
  header.next_record = next_record;
  header.next_object = next_object;
  header.previous_end = place.previous_end;
  header.previous_crc = place.previous_crc;
  header.records_digest = summary.digest();
  header.directory_crc = salted_crc(place.salt, place.offset + end, directory);
  header.crc = salted_crc(place.salt, place.offset, bytes_of(header).first(kHeaderCrcBytes));

  std::memcpy(image, &header, sizeof header);
  std::copy(directory.begin(), directory.end(), image + end);
  std::fill(image + header.length, image + round_up(header.length, kBlock), std::byte{0});
  return header;
}

std::optional<GroupHeader> decode_group_header(std::span<const std::byte> bytes, const Salt& salt,
                                               uint64_t offset) {
  GroupHeader header;
  if (bytes.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != GroupHeader::kMagic || header.version != kFormatVersion) return std::nullopt;
  if (salted_crc(salt, offset, bytes.first(kHeaderCrcBytes)) != header.crc &&
      !planted(Bug::kGroupLengthUnchecked)) {
    return std::nullopt;
  }
  const uint64_t directory_end =
      header.directory + uint64_t{header.record_count} * sizeof(DirectoryEntry);
  if (header.directory < sizeof header || directory_end != header.length) return std::nullopt;
  return header;
}

GroupContents read_group(std::span<const std::byte> image, const GroupHeader& header,
                         const Salt& salt, uint64_t offset, Payloads payloads) {
  GroupContents contents;
  if (image.size() < header.length) return contents;  // the file ends inside: nothing is certain
  contents.records.reserve(header.record_count);
  const bool gapless = walk_records(image, sizeof header, header.directory, salt, offset, payloads,
                                    contents.records);
  uint32_t digest = 0;
  bool payloads_good = true;
  for (auto& entry : contents.records) {
    digest = crc32c(bytes_of(entry.found.crc), digest);
    payloads_good &= entry.payload_good;
  }
  const auto directory = read_directory(image, header, salt, offset, contents.directory_good);
  // Both are in rising order of offset.
  auto next = contents.records.begin();
  for (const DirectoryEntry& listed : directory) {
    while (next != contents.records.end() && next->offset < listed.offset) ++next;
    const bool there = next != contents.records.end() && next->offset == listed.offset;
    if (!there) contents.lost.push_back(listed);
  }
  contents.whole = gapless && payloads_good && contents.directory_good &&
                   contents.records.size() == header.record_count &&
                   digest == header.records_digest;
  return contents;
}

std::vector<GroupContents::Entry> find_records(std::span<const std::byte> bytes, const Salt& salt,
                                               uint64_t offset) {
  std::vector<GroupContents::Entry> records;
  walk_records(bytes, 0, bytes.size(), salt, offset, Payloads::kChecked, records);
  return records;
}

}  // namespace valfs::log
