#include "engine/log/record.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/crc32c.h"
#include "engine/index/attributes.h"

namespace valfs::log {
namespace {

constexpr size_t kCrcSize = sizeof(uint32_t);
constexpr uint32_t kMaxBody = 65535;
constexpr uint32_t kMaxMeta = round_up(
    sizeof(RecordHeader) + kMaxBody + kMaxName + kMaxPayload / kPayloadChunk * kCrcSize, 8);

uint64_t unpadded_meta(size_t body, size_t name, uint64_t payload) {
  return sizeof(RecordHeader) + body + name + payload_crc_count(payload) * kCrcSize;
}

RecordHeader header_of(std::span<const std::byte> bytes) {
  RecordHeader header;
  std::memcpy(&header, bytes.data(), sizeof header);
  return header;
}

bool is_plausible(const RecordHeader& header) {
  if (header.magic != RecordHeader::kMagic || header.payload_length > kMaxPayload) return false;
  return header.meta_length ==
         round_up(unpadded_meta(header.body_length, header.name_length, header.payload_length),
                  kRecordAlignment);
}

}  // namespace

uint32_t Record::meta_length() const {
  return static_cast<uint32_t>(
      round_up(unpadded_meta(body.size(), name.size(), payload.size()), kRecordAlignment));
}

uint64_t Record::total_length() const {
  return round_up(meta_length() + payload.size(), kRecordAlignment);
}

ObjectId youngest_object(const Record& record) {
  if (record.type == RecordType::kInode && record.body.size() == sizeof(index::Attributes)) {
    index::Attributes attributes;
    std::memcpy(&attributes, record.body.data(), sizeof attributes);
    return std::max(record.id, attributes.blob);
  }
  if (record.type == RecordType::kName) return std::max({record.id, record.a, record.b});
  return record.id;
}

uint64_t inode_record_length() {
  return round_up(unpadded_meta(sizeof(index::Attributes), 0, 0), kRecordAlignment);
}

uint64_t name_record_length(size_t name_length) {
  return round_up(unpadded_meta(0, name_length, 0), kRecordAlignment);
}

uint32_t encode(const Record& record, const Salt& salt, uint64_t offset, std::byte* into) {
  VALFS_CHECK(record.name.size() <= kMaxName && record.body.size() <= kMaxBody &&
              record.payload.size() <= kMaxPayload);
  RecordHeader header;
  header.type = record.type;
  header.flags = record.flags;
  header.meta_length = record.meta_length();
  header.payload_length = static_cast<uint32_t>(record.payload.size());
  header.sequence = record.sequence;
  header.id = record.id;
  header.a = record.a;
  header.b = record.b;
  header.seconds = record.time.seconds;
  header.nanoseconds = record.time.nanoseconds;
  header.name_length = static_cast<uint16_t>(record.name.size());
  header.body_length = static_cast<uint16_t>(record.body.size());
  header.origin = record.origin;

  std::byte* at = into + sizeof header;
  at = std::copy(record.body.begin(), record.body.end(), at);
  const auto name = std::as_bytes(std::span(record.name));
  at = std::copy(name.begin(), name.end(), at);
  for (size_t done = 0; done < record.payload.size(); done += kPayloadChunk) {
    const uint32_t crc = crc32c(record.payload.subspan(
        done, std::min<size_t>(kPayloadChunk, record.payload.size() - done)));
    std::memcpy(at, &crc, kCrcSize);
    at += kCrcSize;
  }
  std::fill(at, into + header.meta_length, std::byte{0});
  std::memcpy(into, &header, sizeof header);
  header.crc = salted_crc(salt, offset, {into + kCrcSize, header.meta_length - kCrcSize});
  std::memcpy(into, &header.crc, kCrcSize);

  at = std::copy(record.payload.begin(), record.payload.end(), into + header.meta_length);
  std::fill(at, into + record.total_length(), std::byte{0});
  return header.crc;
}

bool FoundRecord::chunk_is(uint64_t index, std::span<const std::byte> bytes) const {
  if ((index + 1) * kCrcSize > crc_list.size()) return false;
  uint32_t expected;
  std::memcpy(&expected, crc_list.data() + index * kCrcSize, kCrcSize);
  return crc32c(bytes) == expected;
}

bool FoundRecord::payload_is(std::span<const std::byte> payload) const {
  if (payload.size() != payload_length) return false;
  for (uint64_t chunk = 0; chunk * kPayloadChunk < payload.size(); chunk++) {
    const auto rest = payload.subspan(chunk * kPayloadChunk);
    if (!chunk_is(chunk, rest.first(std::min<size_t>(rest.size(), kPayloadChunk)))) return false;
  }
  return true;
}

uint32_t plausible_meta_length(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(RecordHeader)) return 0;
  const RecordHeader header = header_of(bytes);
  return is_plausible(header) ? header.meta_length : 0;
}

std::optional<FoundRecord> decode(std::span<const std::byte> bytes, const Salt& salt,
                                  uint64_t offset) {
  if (bytes.size() < sizeof(RecordHeader)) return std::nullopt;
  const RecordHeader header = header_of(bytes);
  // The lengths are bounded by constants here and believed only after the CRC.
  if (!is_plausible(header) || header.meta_length > kMaxMeta || header.meta_length > bytes.size())
    return std::nullopt;
  if (salted_crc(salt, offset, bytes.subspan(kCrcSize, header.meta_length - kCrcSize)) !=
      header.crc)
    return std::nullopt;

  FoundRecord found;
  found.crc = header.crc;
  found.meta_length = header.meta_length;
  found.payload_length = header.payload_length;
  found.total_length =
      round_up(uint64_t{header.meta_length} + header.payload_length, kRecordAlignment);
  Record& record = found.record;
  record.type = header.type;
  record.flags = header.flags;
  record.sequence = header.sequence;
  record.id = header.id;
  record.a = header.a;
  record.b = header.b;
  record.time = {header.seconds, header.nanoseconds};
  record.origin = header.origin;
  record.body = bytes.subspan(sizeof header, header.body_length);
  record.name = {reinterpret_cast<const char*>(bytes.data()) + sizeof header + header.body_length,
                 header.name_length};
  found.crc_list = bytes.subspan(sizeof header + header.body_length + header.name_length,
                                 payload_crc_count(header.payload_length) * kCrcSize);
  return found;
}

}  // namespace valfs::log
