// Memory for the rows of the index: small pieces of many sizes, named by 32 bits instead of 64.
//
// Pieces are cut from chunks of 2 MiB (a huge page each), in size classes (8 bytes apart up to 2
// KiB, then eight to a doubling); what is freed goes to a list of its class and is used again for
// that class only, and chunks are kept until the arena goes. So a piece costs nothing but what
// rounding takes: malloc would add 8 to 24 bytes to each, and a pointer to it 4. At most 32 GiB in
// all.
//
// Not thread-safe; reading pieces while nobody allocates is.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "engine/base/large_memory.h"

namespace valfs::index {

class Arena {
 public:
  using Ref = uint32_t;
  static constexpr Ref kNone = 0;
  static constexpr size_t kUnit = 8;              // bytes; also the alignment
  static constexpr size_t kLargest = 128 * 1024;  // bytes of a piece

  // Bytes that a piece for `bytes` really has. Equal for sizes of the same class.
  static size_t rounded(size_t bytes);

  // Not zeroed; `bytes` up to kLargest.
  Ref allocate(size_t bytes);
  // With the size it was asked for, or one of the same class.
  void free(Ref ref, size_t bytes);
  std::byte* at(Ref ref) const {
    return chunks_[ref / kUnitsPerChunk].get() + ref % kUnitsPerChunk * kUnit;
  }
  uint64_t memory() const { return chunks_.size() * kChunk; }  // bytes
  void clear();

 private:
  static constexpr size_t kChunk = kHugePage;
  static constexpr size_t kUnitsPerChunk = kChunk / kUnit;
  static constexpr size_t kFine = 2048;  // up to here classes are a unit apart
  static constexpr size_t kFineClasses = kFine / kUnit + 1;
  static constexpr size_t kClasses = kFineClasses + 6 * 8;
  static size_t class_of(size_t bytes);

  struct Free {
    void operator()(std::byte* chunk) const { std::free(chunk); }
  };

  std::vector<std::unique_ptr<std::byte[], Free>> chunks_;
  size_t used_ = kChunk;  // of the last chunk
  std::array<Ref, kClasses> free_{};
};

}  // namespace valfs::index
