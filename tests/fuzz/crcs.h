// Makes the checksums of mutated bytes right again, so that a fuzzer gets past them. What a fuzzer
// then finds takes a bug elsewhere (or malice) to happen, but must be no worse than any other
// damage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/log/group.h"

namespace valfs::fuzz {

// Takes bytes off the input, one thing after the other; zeros when it is used up.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : left_(std::as_bytes(std::span(data, size))) {}
  bool empty() const { return left_.empty(); }
  std::vector<std::byte> bytes(size_t count);
  std::vector<std::byte> rest() { return bytes(left_.size()); }
  template <class T>
  T take() {
    T value{};
    const auto taken = bytes(sizeof value);
    __builtin_memcpy(static_cast<void*>(&value), taken.data(), sizeof value);
    return value;
  }
  uint64_t below(uint64_t bound) { return take<uint32_t>() % bound; }

 private:
  std::span<const std::byte> left_;
};

// Records at 8-byte steps, directory and header of the group that starts at `offset` of its file.
void fix_group(std::span<std::byte> image, const log::Salt& salt, uint64_t offset);
// All groups of a log file, and its header.
void fix_log_file(std::span<std::byte> file);
void fix_superblock(std::span<std::byte> copy);
void fix_checkpoint(std::span<std::byte> file);
void fix_staging_header(std::span<std::byte> memory);

}  // namespace valfs::fuzz
