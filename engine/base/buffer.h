// Bytes on the heap that begin with whatever was there: for what is overwritten as a whole.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace valfs {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t size)
      : bytes_(std::make_unique_for_overwrite<std::byte[]>(size)), size_(size) {}

  std::span<std::byte> span() { return {bytes_.get(), size_}; }
  std::span<const std::byte> span() const { return {bytes_.get(), size_}; }
  size_t size() const { return size_; }
  // Only the first `size` bytes count from now on.
  void shrink(size_t size) { size_ = size; }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  size_t size_ = 0;
};

}  // namespace valfs
