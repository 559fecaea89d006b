// Bytes to write in tests.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>

#include "engine/storage/storage.h"

namespace valfs::test {

// Memory that durable writes may come from.
class Blocks {
 public:
  Blocks(size_t count, char fill)
      : size_(count * storage::kBlockSize),
        bytes_(static_cast<std::byte*>(std::aligned_alloc(storage::kBlockSize, size_))) {
    std::memset(bytes_.get(), fill, size_);
  }
  std::span<std::byte> bytes() { return {bytes_.get(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* bytes) const { std::free(bytes); }
  };

  size_t size_;
  std::unique_ptr<std::byte, Free> bytes_;
};

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

}  // namespace valfs::test
