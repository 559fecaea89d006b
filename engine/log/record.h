// A record: in memory, to bytes, and back.
//
// clang-format off
//   type         id        a                b            body          payload
//   INODE        inode     –                –            Attributes    –
//   EXTENT       inode     offset           parent       –             bytes of the value
//   EXTENT copy  inode     offset           parent       old Position  bytes of the value
//    compressed  inode     offset           parent       FrameTable …  frames (compression.h)
//   TRUNCATE     inode     new size         –            –             –
//   ZERO         inode     offset           length       –             –
//   NAME         cookie    inode            parent       –             –       (name: the entry's)
//   UNNAME       cookie    inode            parent       –             –
//   REMOVE       inode     –                –            –             –
//   BLOB_WRITE   inode     offset           length       –             –
//   BLOB_SYNC    inode     durable size     –            –             –
//   MANIFEST     –         newest freed     newest       –             ManifestEntry[]
//                          group            log file
// clang-format on
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/base/time.h"
#include "engine/log/format.h"

namespace valfs::log {

// Flags of a record.
inline constexpr uint8_t kCopy = 1;  // made by the cleaner, from the position in the body
inline constexpr uint8_t kSums = 2;  // EXTENT of a blob's chunk sums
// INODE: bytes of the value went with a log file that is lost. Which, only a checkpoint knows:
// without one the whole value answers EIO until it is cut to nothing or written anew.
inline constexpr uint8_t kLossy = 4;
inline constexpr uint8_t kCompressed = 8;  // EXTENT copy: its payload is frames
// EXTENT copy: compressing it did not give enough, and is not tried again.
inline constexpr uint8_t kIncompressible = 16;

// Spans and names are views; whoever makes a Record keeps what they point to.
struct Record {
  RecordType type{};
  uint8_t flags = 0;
  RecordSequence sequence = 0;
  ObjectId id = 0;
  uint64_t a = 0;
  uint64_t b = 0;
  Time time;
  GroupSequence origin = 0;
  std::span<const std::byte> body;
  std::string_view name;
  std::span<const std::byte> payload;

  uint32_t meta_length() const;   // bytes before the payload
  uint64_t total_length() const;  // bytes in the log, a multiple of 8
};

// The youngest object that a record names, be it in passing: ids up to it are taken.
ObjectId youngest_object(const Record& record);

// Bytes of an INODE record, and of a NAME record with a name of that length: for space accounts.
uint64_t inode_record_length();
uint64_t name_record_length(size_t name_length);

// Writes total_length() bytes, all of them, to `into`; returns the header's CRC.
uint32_t encode(const Record& record, const Salt& salt, uint64_t offset, std::byte* into);

// A record as it was found: what decode() has checked, and the payload's CRCs.
struct FoundRecord {
  Record record;                        // views into the bytes given to decode(); no payload
  std::span<const std::byte> crc_list;  // 4 bytes for each kPayloadChunk of payload
  uint32_t crc = 0;                     // the header's
  uint32_t meta_length = 0;
  uint32_t payload_length = 0;
  uint64_t total_length = 0;

  // True if chunk `index` of the payload has these bytes.
  bool chunk_is(uint64_t index, std::span<const std::byte> bytes) const;
  // Checks a whole payload.
  bool payload_is(std::span<const std::byte> payload) const;
};

// Checks the header and what belongs to it (not the payload, which may be missing from `bytes`).
// Nothing if this is not a record that belongs at `offset`. `bytes` starts with the header.
std::optional<FoundRecord> decode(std::span<const std::byte> bytes, const Salt& salt,
                                  uint64_t offset);

// The length that decode() would need, read without trusting it: only its bounds are checked.
// 0 if this cannot be a header.
uint32_t plausible_meta_length(std::span<const std::byte> bytes);

}  // namespace valfs::log
