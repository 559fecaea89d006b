// The objects that are in the cache: an index to find them, a dense row of slots to sample from,
// and the account of their bytes. Knows nothing of why an object comes or goes.
#pragma once

#include <boost/intrusive/unordered_set.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/cache/lhd_policy.h"
#include "engine/cache/random.h"

namespace valfs::cache {

// A chunk of a value: the value's inode id and the chunk's number in the value.
struct CacheKey {
  uint64_t id = 0;
  uint64_t chunk = 0;
  friend bool operator==(const CacheKey&, const CacheKey&) = default;
};

[[nodiscard]] constexpr uint64_t hash_of(const CacheKey& key) {
  return mix64(mix64(key.id) + key.chunk);
}

class Entry;
struct EntryDeleter {
  void operator()(Entry* entry) const;
};
using EntryPointer = std::unique_ptr<Entry, EntryDeleter>;

// A cached chunk with its own copy of the bytes, which follow it in memory.
class Entry : public boost::intrusive::unordered_set_base_hook<> {
 public:
  static EntryPointer make(const CacheKey& key, std::span<const std::byte> contents);

  [[nodiscard]] uint64_t charge() const;
  [[nodiscard]] std::span<const std::byte> view() const {
    return {reinterpret_cast<const std::byte*>(this + 1), size};
  }

  const CacheKey key;
  const size_t size;  // bytes
  size_t slot = 0;    // where Residents keeps it

 private:
  Entry(const CacheKey& of, size_t bytes) : key(of), size(bytes) {}
};

// Where an entry is kept, with what the policy asks about it: every eviction looks at many entries
// chosen at random, and shall not have to touch the entries themselves.
struct alignas(32) Slot {
  [[no_unique_address]] LhdTag tag;
  uint32_t charge = 0;
  EntryPointer entry;
};
static_assert(sizeof(Slot) == 32, "two in a cache line");

// At least so many buckets for each entry: a key that is not there should be found out by looking
// at its bucket alone, without touching another entry.
inline constexpr size_t kBucketsPerEntry = 2;

// What an entry takes besides its bytes: itself and its slot; its buckets, twice, because that
// array grows by doubling; and what the allocator adds to a block.
inline constexpr uint64_t kEntryOverhead =
    sizeof(Entry) + sizeof(Slot) + 2 * kBucketsPerEntry * sizeof(void*) + 16;
static_assert(kEntryOverhead <= 120);

[[nodiscard]] constexpr uint64_t charge_of(uint64_t size) {
  return size + kEntryOverhead;
}
inline uint64_t Entry::charge() const {
  return charge_of(size);
}

// Not thread-safe. Allocates nothing before the first add().
class Residents {
 public:
  Residents();
  Residents(const Residents&) = delete;
  Residents& operator=(const Residents&) = delete;

  // nullptr if there is none. Valid until the entry is removed.
  [[nodiscard]] Entry* find(const CacheKey& key);
  // No entry with this key may be there.
  Slot& add(EntryPointer entry, const LhdTag& tag);
  // Gives it to the caller.
  EntryPointer remove(Entry& entry);
  void clear();

  // Of all entries in no particular order; removal moves the last one to the free slot.
  [[nodiscard]] Slot& at(size_t slot) { return blocks_[slot / kBlock][slot % kBlock]; }
  [[nodiscard]] Slot& slot_of(const Entry& entry) { return at(entry.slot); }
  [[nodiscard]] size_t count() const { return count_; }
  // The sum of all charges.
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  struct KeyOf {
    using type = CacheKey;
    const CacheKey& operator()(const Entry& entry) const { return entry.key; }
  };
  struct Hash {
    size_t operator()(const CacheKey& key) const { return hash_of(key); }
  };
  using Index = boost::intrusive::unordered_set<Entry, boost::intrusive::key_of_value<KeyOf>,
                                                boost::intrusive::hash<Hash>,
                                                boost::intrusive::power_2_buckets<true>>;

  static constexpr size_t kBlock = 512;

  void grow_index();

  // The index is declared last, to be destroyed before the entries and buckets it points to.
  Index::bucket_type first_bucket_;
  std::vector<Index::bucket_type> buckets_;
  std::vector<std::unique_ptr<Slot[]>> blocks_;  // of kBlock slots: grow without being moved
  size_t count_ = 0;
  uint64_t bytes_ = 0;
  Index index_;
};

}  // namespace valfs::cache
