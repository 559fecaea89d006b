#include "engine/log/format.h"

#include <cstdio>

#include "engine/base/crc32c.h"
#include "engine/base/planted.h"

namespace valfs::log {

uint32_t VolumeId::salt() const {
  return crc32c(std::as_bytes(std::span(bytes)));
}

std::string VolumeId::text() const {
  std::string result;
  for (const uint8_t byte : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", byte);
    result += digits;
  }
  return result;
}

uint32_t salted_crc(const Salt& salt, uint64_t offset, std::span<const std::byte> bytes) {
  struct Place {
    uint32_t volume, file, epoch, reserved;
    uint64_t offset;
  };
  if (planted(Bug::kUnsaltedSums)) return crc32c(bytes);
  if (planted(Bug::kMisplacedSums)) offset = 0;
  const Place place{salt.volume, salt.file, salt.epoch, 0, offset};
  return crc32c(bytes, crc32c(bytes_of(place)));
}

uint64_t payload_crc_count(uint64_t payload_length) {
  return (payload_length + kPayloadChunk - 1) / kPayloadChunk;
}

std::string log_file_path(FileId id) {
  char path[32];
  std::snprintf(path, sizeof path, "wal/%02x/%02x/%08x", id >> 16 & 0xff, id >> 8 & 0xff, id);
  return path;
}

}  // namespace valfs::log
