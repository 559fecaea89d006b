// Compressed payloads: frames, each of which can be read without the others, so that a part of a
// value costs the frames that it touches and not the value.
//
//   body       FrameTable, then the stored length of each frame (uint32_t), then zeros
//   payload    the frames, one behind the other; one that does not shrink lies there as it is
//
// Only copies that the cleaner makes are compressed. The record's header vouches for the table, the
// payload's CRCs for the stored bytes; nothing is expanded that they do not match, and a frame that
// does not give exactly as many bytes as it should gives none.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "engine/log/record.h"
#include "engine/options.h"

namespace valfs::log {

inline constexpr uint32_t kFrame = 64 * 1024;              // raw bytes of each but the last
inline constexpr uint32_t kFrames = kMaxPayload / kFrame;  // most of one record
inline constexpr uint32_t kLeastCompressed = 1024;         // values of fewer bytes stay as they are

struct FrameTable {
  Position from;  // of what was copied, as in every copy
  uint32_t raw_length = 0;
  Compression algorithm = Compression::kNone;
  uint8_t frame_bits = 16;  // kFrame = 1 << frame_bits
  uint16_t reserved = 0;
};
static_assert(sizeof(FrameTable) == 16 && offsetof(FrameTable, raw_length) == 8 &&
              offsetof(FrameTable, algorithm) == 12 && std::is_trivially_copyable_v<FrameTable>);
static_assert(kFrame == 1 << 16 && kMaxPayload % kFrame == 0);

// Where the frames of a record lie, checked: whoever has one can rely on it.
class Frames {
 public:
  // Nothing if `body` does not describe a payload of that length.
  static std::optional<Frames> read(std::span<const std::byte> body, uint64_t payload_length);

  Compression algorithm() const { return algorithm_; }
  uint64_t raw_length() const { return raw_length_; }
  uint64_t count() const { return count_; }
  // Of frame `index`: how many bytes it stands for; where it begins in the payload, and where the
  // last one ends.
  uint64_t raw_bytes(uint64_t index) const;
  uint64_t stored_begin(uint64_t index) const { return begins_[index]; }

  // The raw bytes [begin, begin + into.size()), which must lie inside, from stored ones:
  // those of the payload from `stored_begin` on. False if a frame is not what it should be.
  bool expand(std::span<const std::byte> stored, uint64_t stored_from, uint64_t begin,
              std::span<std::byte> into) const;

 private:
  Compression algorithm_{};
  uint64_t raw_length_ = 0;
  uint64_t count_ = 0;
  std::array<uint32_t, kFrames + 1> begins_{};
};

inline bool is_compressed(const Record& record) {
  return (record.flags & kCompressed) != 0;
}
// Bytes of the value that an EXTENT record holds, compressed or not; nothing if its frames make no
// sense.
std::optional<uint64_t> raw_length(const Record& record, uint64_t payload_length);
// The same bytes themselves, of a record with its payload. Nothing if they cannot be had.
std::optional<std::vector<std::byte>> raw_bytes(const Record& record);

// What a compressed record takes in the log is shared out among its raw bytes, so that each piece
// that is left of it counts for its part: the first `raw` of them count for so many bytes, with
// `rate` in 1/65536. What a run counts for is the difference of two such numbers: so the sum is
// exact however it is cut.
constexpr uint64_t share(uint64_t rate, uint64_t raw) {
  return round_up(rate * raw >> 16, kRecordAlignment);
}
// The lowest rate at which all of them together count for no less than the record takes.
constexpr uint64_t rate_for(uint64_t total_length, uint64_t raw) {
  return (((total_length - kRecordAlignment + 1) << 16) + raw - 1) / raw;
}
inline constexpr uint64_t kHighestRate = (1 << 17) - 1;

// What a copy has instead of the payload it is made from.
struct Packed {
  std::vector<std::byte> body;
  std::vector<std::byte> payload;
};
// Compresses the payload of `copy`, which stands at `from` now. Nothing, unless that makes the
// record take less than 90 % of what it takes.
std::optional<Packed> pack(const Record& copy, Position from, Compression algorithm);
// The body for a copy of a record that is compressed already, with the same payload.
std::vector<std::byte> body_for_copy(const Record& compressed, Position from);

}  // namespace valfs::log
