#include "engine/index/extent_map.h"

#include <algorithm>

namespace valfs::index {

Extent Extent::without_first(uint64_t bytes) const {
  Extent rest = *this;
  rest.offset += bytes;
  rest.length = length - bytes;
  rest.lead = lead + bytes;
  return rest;
}

Extent Extent::first(uint64_t bytes) const {
  Extent piece = *this;
  piece.length = bytes;
  return piece;
}

size_t ExtentMap::first_ending_after(uint64_t offset) const {
  const auto found =
      std::partition_point(extents_.begin(), extents_.end(),
                           [offset](const Extent& extent) { return extent.end() <= offset; });
  return static_cast<size_t>(found - extents_.begin());
}

bool ExtentMap::refers_to(log::Position record) const {
  return std::any_of(extents_.begin(), extents_.end(),
                     [record](const Extent& extent) { return extent.record == record; });
}

void ExtentMap::cut(uint64_t begin, uint64_t end, const OnRelease& released) {
  if (begin >= end) return;
  size_t at = first_ending_after(begin);
  Extents gone;
  while (at < extents_.size() && extents_[at].offset < end) {
    const Extent old = extents_[at];
    const uint64_t from = std::max(old.offset, begin);
    const uint64_t to = std::min(old.end(), end);
    gone.push_back(old.without_first(from - old.offset).first(to - from));
    if (from > old.offset && to < old.end()) {  // a hole inside: one becomes two
      extents_[at] = old.first(from - old.offset);
      extents_.insert(extents_.begin() + static_cast<ptrdiff_t>(at) + 1,
                      old.without_first(to - old.offset));
      break;
    }
    if (from > old.offset) {
      extents_[at++] = old.first(from - old.offset);
    } else if (to < old.end()) {
      extents_[at++] = old.without_first(to - old.offset);
    } else {
      extents_.erase(extents_.begin() + static_cast<ptrdiff_t>(at));
    }
  }
  for (size_t i = 0; i < gone.size(); i++) {
    uint64_t bytes = gone[i].own_bytes();
    // A record's header dies with the last piece of it, and only once.
    const bool again = std::any_of(gone.begin() + static_cast<ptrdiff_t>(i) + 1, gone.end(),
                                   [&](const Extent& e) { return e.record == gone[i].record; });
    if (!again && !refers_to(gone[i].record)) bytes += gone[i].shared_bytes();
    released({bytes, gone[i].record});
  }
}

void ExtentMap::insert(const Extent& extent, const OnRelease& released) {
  if (extent.length == 0) return;
  // Most writes append.
  if (extents_.empty() || extents_.back().end() <= extent.offset) {
    extents_.push_back(extent);
    return;
  }
  cut(extent.offset, extent.end(), released);
  extents_.insert(extents_.begin() + static_cast<ptrdiff_t>(first_ending_after(extent.offset)),
                  extent);
}

uint64_t ExtentMap::repoint(log::Position old, const Extent& copy, const OnRelease& released) {
  bool moved = false;
  uint64_t left = 0;    // bytes in the old record
  uint64_t shared = 0;  // of those, until its last piece goes
  uint64_t taken = 0;   // bytes in the copy
  for (size_t at = first_ending_after(copy.offset);
       at < extents_.size() && extents_[at].offset < copy.end(); at++) {
    Extent& extent = extents_[at];
    // The cleaner copies whole runs, so a piece is never only partly inside the copy.
    if (extent.record != old || extent.offset < copy.offset || extent.end() > copy.end()) continue;
    left += extent.own_bytes();
    shared = extent.shared_bytes();
    extent = copy.without_first(extent.offset - copy.offset).first(extent.length);
    taken += extent.own_bytes();
    moved = true;
  }
  if (!moved) return 0;
  released({left + (refers_to(old) ? 0 : shared), old});
  return taken + copy.shared_bytes();
}

std::span<const Extent> ExtentMap::overlapping(uint64_t begin, uint64_t end) const {
  const size_t from = first_ending_after(begin);
  size_t to = from;
  while (to < extents_.size() && extents_[to].offset < end) to++;
  return {extents_.data() + from, to - from};
}

uint64_t ExtentMap::bytes() const {
  uint64_t sum = 0;
  for (const Extent& extent : extents_) sum += extent.length;
  return sum;
}

}  // namespace valfs::index
