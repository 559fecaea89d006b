// The read cache: chunks of values in memory, kept by Least Hit Density (see lhd_policy.h).
//
// Thread-safe. One mutex guards everything; hits take it too, and copy out under it. The copy that
// an insertion keeps is made before the mutex is taken.
//
// The cache holds copies and never writes back: whatever it forgets can be read again. Keeping it
// coherent is the caller's part: whoever changes a value erases its chunks (or inserts the new
// ones), and does not insert what it read before another's change.
#pragma once

#include <array>
#include <boost/container/small_vector.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "engine/cache/lhd_policy.h"
#include "engine/cache/random.h"
#include "engine/cache/residents.h"

namespace valfs::cache {

struct CacheOptions {
  uint64_t capacity_bytes = 64 * 1024 * 1024;  // 0 turns the cache off
  // Same seed, same calls: same decisions.
  uint64_t seed = 1;
  // K: the fixed cost of a miss, in bytes that could be read in the same time. 160,000 stands for
  // 80 us and 2 GB/s. Towards infinity the cache minimises misses, towards 0 missed bytes.
  double cost_bytes = 160'000;
};

struct CacheStats {
  uint64_t capacity = 0;
  uint64_t bytes = 0;  // charged: contents and overhead of all entries, never above the capacity
  uint64_t entries = 0;
  int64_t explorer_allowance = 0;  // bytes; 1 % of the capacity when nothing is protected
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t inserts = 0;  // replacements included
  uint64_t evictions = 0;
  uint64_t bypasses = 0;  // insertions refused because of their size
  uint64_t reconfigurations = 0;
};

class ValueCache {
 public:
  // Allocates nothing: tables and index grow with the first entries.
  explicit ValueCache(const CacheOptions& options);
  ValueCache(const ValueCache&) = delete;
  ValueCache& operator=(const ValueCache&) = delete;

  // Copies the bytes of the cached chunk from `offset` on into `into`. Returns how many, less than
  // into.size() where the chunk ends earlier, or nullopt if the chunk is not cached. Each call is
  // one request to the policy.
  [[nodiscard]] std::optional<size_t> read(const CacheKey& key, size_t offset,
                                           std::span<std::byte> into);

  // Caches a copy of `bytes` as the contents of the chunk, instead of what was cached before.
  // Larger than an eighth of the capacity it is not cached, and what was cached before is erased.
  // After a read() that missed this completes the request, otherwise it is one of its own.
  void insert(const CacheKey& key, std::span<const std::byte> bytes);

  void erase(const CacheKey& key);
  // Erases the chunks first to last, both included, of value `id`. Costs a look-up for each chunk
  // or a walk over all entries, whichever is less.
  void erase_chunks(uint64_t id, uint64_t first, uint64_t last);
  // Drops every entry; keeps what the policy learned and the counters.
  void clear();

  [[nodiscard]] CacheStats stats() const;

 private:
  static constexpr size_t kNewcomers = 8;
  static constexpr size_t kMissesRemembered = 64;

  // What has left, to be freed when the mutex is not held any more: another thread's malloc may
  // have made it, and then that takes a lock of its own.
  using Leavers = boost::container::small_vector<EntryPointer, 4>;

  // These expect the mutex to be held.
  void begin_insert(uint64_t hash);
  void admit(EntryPointer entry, Leavers& leavers);
  void make_room(uint64_t charge, Leavers& leavers);
  [[nodiscard]] const Slot& choose_victim();
  void drop(Entry& entry, Leavers& leavers);
  void erase_present(const CacheKey& key, Leavers& leavers);

  const uint64_t capacity_;

  mutable std::mutex mutex_;
  LhdPolicy policy_;
  Random random_;
  Residents residents_;
  // A ring of newcomers that looked worse on arrival than what was evicted lately: candidates of
  // every eviction, so that they go at once instead of when a sample happens to meet them.
  std::array<Entry*, kNewcomers> newcomers_{};
  size_t next_newcomer_ = 0;
  // Hashes of keys that missed and may be filled next: a miss and its fill are one request.
  std::array<uint64_t, kMissesRemembered> missed_{};
  CacheStats counters_;  // of which stats() fills in the rest
};

}  // namespace valfs::cache
