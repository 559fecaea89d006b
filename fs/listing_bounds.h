// Where a listing of a directory ends: names made after it began are not part of it. Without this,
// a program that renames each entry it reads would read for ever, because a new name comes last.
//
// The kernel tells nobody that a directory is opened (the mount answers no OPENDIR), so the bound
// is found again through the offsets of the listing itself: a number in their upper bits. After
// 4096 more listings the number is given out again; an old listing then ends a little later.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace valfs::fs {

class ListingBounds {
 public:
  // An offset is a cookie and the number of the listing's bound.
  static constexpr int kCookieBits = 48;
  static uint64_t cookie_of(uint64_t offset) { return offset & ((uint64_t{1} << kCookieBits) - 1); }
  static uint64_t number_of(uint64_t offset) { return (offset >> kCookieBits) % kCount; }
  static uint64_t offset_of(uint64_t number, uint64_t cookie) {
    return number << kCookieBits | cookie;
  }

  // Begins a listing that shows cookies below `bound`; returns its number.
  uint64_t begin(uint64_t bound) {
    const uint64_t number = next_.fetch_add(1, std::memory_order_relaxed) % kCount;
    bounds_[number].store(bound, std::memory_order_relaxed);
    return number;
  }
  // 0 after a restart of the daemon: no bound is known.
  uint64_t bound(uint64_t number) const { return bounds_[number].load(std::memory_order_relaxed); }

 private:
  static constexpr uint64_t kCount = 4096;
  std::atomic<uint64_t> next_{0};
  std::array<std::atomic<uint64_t>, kCount> bounds_{};
};

}  // namespace valfs::fs
