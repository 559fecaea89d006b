// Where the bytes of a value lie: extents in rising order, without overlap. Gaps are holes.
#pragma once

#include <boost/container/small_vector.hpp>
#include <functional>
#include <span>

#include "engine/log/compression.h"

namespace valfs::index {

// A run of bytes of a value inside one record's payload.
struct Extent {
  uint64_t offset = 0;       // in the value
  uint64_t length : 23 = 0;  // ≤ 4 MiB
  // Bytes from the record's start to this run's first byte; if it is compressed, from its first raw
  // byte.
  uint64_t lead : 23 = 0;
  uint64_t compressed : 1 = 0;
  // Bytes of the record before its payload; if it is compressed, at which rate its raw bytes count
  // (log::share).
  uint64_t meta : 17 = 0;
  log::Position record;

  uint64_t end() const { return offset + length; }
  // Where the run begins in the record's (raw) payload.
  uint64_t in_payload() const { return compressed != 0 ? lead : lead - meta; }
  // Bytes of the log that this run keeps alive for itself.
  uint64_t own_bytes() const {
    return compressed != 0 ? log::share(meta, lead + length) - log::share(meta, lead) : length;
  }
  // Those that stay alive until the last run in the record goes: its header.
  uint64_t shared_bytes() const { return compressed != 0 ? 0 : meta; }
  // The payload is checked, or expanded, in steps of so many bytes.
  uint64_t step() const { return compressed != 0 ? log::kFrame : log::kPayloadChunk; }
  // The same extent without its first or behind its first `bytes`.
  Extent without_first(uint64_t bytes) const;
  Extent first(uint64_t bytes) const;
};
static_assert(sizeof(Extent) == 24);

class ExtentMap {
 public:
  using Extents = boost::container::small_vector<Extent, 1>;

  // What a change let go: pieces that are no longer part of the value, and records that none of the
  // value's extents points to any more (their shared bytes are dead too).
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
  // of the log that they keep alive there. `copy` is the extent as if it were whole.
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
