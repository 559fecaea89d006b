// Where the bytes of a value lie: extents in rising order, without overlap. Gaps are holes.
#pragma once

#include <boost/container/small_vector.hpp>
#include <functional>
#include <span>

#include "engine/log/format.h"

namespace valfs::index {

// A run of bytes of a value inside one record's payload.
struct Extent {
  uint64_t offset = 0;       // in the value
  uint64_t length : 23 = 0;  // ≤ 4 MiB
  uint64_t lead : 24 = 0;    // bytes from the record's start to this run's first byte
  uint64_t meta : 17 = 0;    // bytes of the record before its payload
  log::Position record;

  uint64_t end() const { return offset + length; }
  // The same extent without its first or behind its first `bytes`.
  Extent without_first(uint64_t bytes) const;
  Extent first(uint64_t bytes) const;
};
static_assert(sizeof(Extent) == 24);

class ExtentMap {
 public:
  using Extents = boost::container::small_vector<Extent, 1>;

  // What a change let go: pieces that are no longer part of the value, and records that none of the
  // value's extents points to any more (their `meta` bytes are dead too).
  struct Released {
    uint64_t bytes = 0;
    log::Position record;
  };
  using OnRelease = std::function<void(const Released&)>;

  ExtentMap() = default;
  explicit ExtentMap(const Extent& only) { extents_.push_back(only); }

  // Puts an extent in, over what was there.
  void insert(const Extent& extent, const OnRelease& released);
  // Makes a hole of [begin, end).
  void cut(uint64_t begin, uint64_t end, const OnRelease& released);
  // Points the pieces of [offset, offset + length) that lie in `old` to `copy`; returns the bytes
  // moved. `copy` is the extent as if it were whole.
  uint64_t repoint(log::Position old, const Extent& copy, const OnRelease& released);

  // Extents that touch [begin, end), as they are (not cut to the range).
  std::span<const Extent> overlapping(uint64_t begin, uint64_t end) const;
  std::span<const Extent> all() const { return {extents_.data(), extents_.size()}; }
  uint64_t bytes() const;  // stored, holes not counted
  bool empty() const { return extents_.empty(); }

 private:
  size_t first_ending_after(uint64_t offset) const;
  bool refers_to(log::Position record) const;

  Extents extents_;
};

}  // namespace valfs::index
