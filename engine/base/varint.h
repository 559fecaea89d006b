// Numbers of 7 bits a byte, lowest first (LEB128, as in DWARF): small ones are short.
#pragma once

#include <cstddef>
#include <cstdint>

namespace valfs {

inline constexpr size_t kLongestVarint = 10;  // bytes

// Returns the end of what it has written.
inline std::byte* put_varint(std::byte* at, uint64_t value) {
  while (value >= 0x80) {
    *at++ = static_cast<std::byte>(value | 0x80);
    value >>= 7;
  }
  *at++ = static_cast<std::byte>(value);
  return at;
}

// Small ones of either sign are small.
inline uint64_t zigzag(int64_t value) {
  return static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63);
}
inline int64_t unzigzag(uint64_t value) {
  return static_cast<int64_t>(value >> 1 ^ (0 - (value & 1)));
}

// `value` as it is told to who knows `from`, and back.
inline uint64_t difference(uint64_t value, uint64_t from) {
  return zigzag(static_cast<int64_t>(value - from));
}
inline uint64_t after(uint64_t from, uint64_t told) {
  return from + static_cast<uint64_t>(unzigzag(told));
}

}  // namespace valfs
