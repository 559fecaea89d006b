// CRC32C (Castagnoli; RFC 3720 appendix B.4), computed by Intel's ISA-L.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace valfs {

// The checksum of `bytes`; with `previous`, of the bytes that gave `previous` followed by `bytes`.
// Thread-safe.
[[nodiscard]] uint32_t crc32c(std::span<const std::byte> bytes, uint32_t previous = 0);

}  // namespace valfs
