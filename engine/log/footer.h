// The footer of a sealed log file: where its groups lie, and which stretches of it are large
// payloads. With it the index can be rebuilt without a checkpoint by reading only headers, names
// and attributes; without it, by reading everything. A hint: nothing is lost with it.
//
//   groups … | block | block | … | end of file
//
// Each block is 4 KiB and says itself what it is (magic, place, salted CRC), so that a footer that
// was being written when the daemon died is not taken for a damaged group.
#pragma once

#include <optional>
#include <vector>

#include "engine/log/format.h"

namespace valfs::log {

// Payloads of so many bytes are stepped over.
inline constexpr uint32_t kSkippedPayload = 32 * 1024;

struct FooterGroup {
  GroupSequence sequence = 0;
  uint32_t offset = 0;  // in blocks
  uint32_t length = 0;  // in blocks
  uint32_t crc = 0;     // of the group's header
  uint32_t gaps = 0;    // so many of the gaps, in order, belong to it
};
static_assert(sizeof(FooterGroup) == 24 && std::is_trivially_copyable_v<FooterGroup>);

// A large payload.
struct Gap {
  uint32_t offset = 0;  // in the file, in units of kRecordAlignment
  uint32_t length = 0;  // bytes
};
static_assert(sizeof(Gap) == 8 && std::is_trivially_copyable_v<Gap>);

struct Footer {
  std::vector<FooterGroup> groups;  // in order of place
  std::vector<Gap> gaps;            // in order of place
  uint64_t end = 0;                 // where the groups end and the footer begins
};

// The footer's bytes, a multiple of kBlock, for a file whose groups end at footer.end.
std::vector<std::byte> encode_footer(const Footer& footer, const Salt& salt);

// The footer of a file of `size` bytes; nothing if it has none that is whole.
std::optional<Footer> read_footer(storage::File& file, const Salt& salt, uint64_t size);

// True if `block` is one of a footer that belongs at `offset`.
bool is_footer_block(std::span<const std::byte> block, const Salt& salt, uint64_t offset);

// True if `block` was one of a footer, whatever has become of it since.
bool looks_like_footer(std::span<const std::byte> block);

}  // namespace valfs::log
