#include "engine/index/arena.h"

#include <bit>
#include <cstring>

#include "engine/base/check.h"

namespace valfs::index {

size_t Arena::rounded(size_t bytes) {
  if (bytes <= kFine) return (bytes + kUnit - 1) / kUnit * kUnit;
  const size_t step = std::bit_ceil(bytes) / 2 / 8;
  return (bytes + step - 1) / step * step;
}

size_t Arena::class_of(size_t bytes) {
  const size_t size = rounded(bytes);
  if (size <= kFine) return size / kUnit;
  const auto doublings = static_cast<size_t>(std::bit_width((size - 1) / kFine)) - 1;
  const size_t eighth = (kFine << doublings) / 8;
  return kFineClasses + doublings * 8 + (size - (kFine << doublings)) / eighth - 1;
}

Arena::Ref Arena::allocate(size_t bytes) {
  VALFS_CHECK(bytes > 0 && bytes <= kLargest);
  const size_t size = rounded(bytes);
  Ref& list = free_[class_of(bytes)];
  if (list != kNone) {
    const Ref ref = list;
    std::memcpy(&list, at(ref), sizeof list);
    return ref;
  }
  if (kChunk - used_ < size) {
    VALFS_CHECK(chunks_.size() < (uint64_t{1} << 32) / kUnitsPerChunk);
    chunks_.emplace_back(static_cast<std::byte*>(allocate_large(kChunk)));
    used_ = chunks_.size() == 1 ? kUnit : 0;  // nothing has ref 0
  }
  const size_t unit = (chunks_.size() - 1) * kUnitsPerChunk + used_ / kUnit;
  used_ += size;
  return static_cast<Ref>(unit);
}

void Arena::free(Ref ref, size_t bytes) {
  Ref& list = free_[class_of(bytes)];
  std::memcpy(at(ref), &list, sizeof list);
  list = ref;
}

void Arena::clear() {
  chunks_.clear();
  used_ = kChunk;
  free_.fill(kNone);
}

}  // namespace valfs::index
