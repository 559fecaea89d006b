// The buckets of a hash table whose elements are rows: chains of refs, the next one in each row.
//
// Grows by one bucket for each element that is added (linear hashing: Litwin, VLDB 1980), so nobody
// waits while a large table is rehashed. An element moves to a higher bucket only: whoever walks
// the buckets from 0 up while the table grows sees some elements twice and none too little.
#pragma once

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "engine/base/prefetch.h"
#include "engine/index/arena.h"

namespace valfs::index {

// The first 4 bytes of a row are its link.
class HashChains {
 public:
  explicit HashChains(const Arena& arena) : arena_(arena) { clear(); }

  size_t size() const { return size_; }
  size_t buckets() const { return heads_.size(); }
  uint64_t memory() const { return heads_.capacity() * sizeof(Arena::Ref); }  // bytes
  Arena::Ref head(size_t bucket) const { return heads_[bucket]; }
  Arena::Ref head_for(uint64_t hash) const { return heads_[bucket_of(hash)]; }
  // Two steps towards an element, to be taken for many elements at a time: the memory that the
  // second needs is on its way since the first.
  void prefetch_head(uint64_t hash) const { prefetch(&heads_[bucket_of(hash)]); }
  void prefetch_chain(uint64_t hash) const {
    if (const Arena::Ref ref = head_for(hash); ref != Arena::kNone) prefetch(arena_.at(ref));
  }
  Arena::Ref next(Arena::Ref ref) const {
    Arena::Ref link;
    std::memcpy(&link, arena_.at(ref), sizeof link);
    return link;
  }

  void clear() {
    heads_.assign(1, Arena::kNone);
    size_ = 0;
  }
  // While it is empty: room for so many, at once.
  void reserve(size_t count) {
    if (size_ == 0) heads_.assign(std::max<size_t>(count, 1), Arena::kNone);
  }
  // `hash_of` gives the hash of the element at a ref, of any that is in here.
  template <class HashOf>
  void insert(Arena::Ref ref, uint64_t hash, const HashOf& hash_of) {
    push(bucket_of(hash), ref);
    if (++size_ > heads_.size()) split(hash_of);
  }
  void erase(Arena::Ref ref, uint64_t hash) {
    relink(ref, next(ref), hash);
    size_--;
  }
  // The element has moved.
  void replace(Arena::Ref old, Arena::Ref ref, uint64_t hash) {
    set_next(ref, next(old));
    relink(old, ref, hash);
  }

 private:
  size_t bucket_of(uint64_t hash) const {
    const size_t half = std::bit_floor(heads_.size());
    const size_t bucket = hash & (2 * half - 1);
    return bucket < heads_.size() ? bucket : bucket - half;
  }
  void set_next(Arena::Ref ref, Arena::Ref next) {
    std::memcpy(arena_.at(ref), &next, sizeof next);
  }
  void push(size_t bucket, Arena::Ref ref) {
    set_next(ref, heads_[bucket]);
    heads_[bucket] = ref;
  }
  // What leads to `ref` shall lead to `to`.
  void relink(Arena::Ref ref, Arena::Ref to, uint64_t hash) {
    const size_t bucket = bucket_of(hash);
    if (heads_[bucket] == ref) {
      heads_[bucket] = to;
      return;
    }
    Arena::Ref at = heads_[bucket];
    while (next(at) != ref) at = next(at);
    set_next(at, to);
  }
  // The elements of one bucket are shared out between it and a new one.
  template <class HashOf>
  void split(const HashOf& hash_of) {
    const size_t old = heads_.size() - std::bit_floor(heads_.size());
    heads_.push_back(Arena::kNone);
    Arena::Ref ref = heads_[old];
    heads_[old] = Arena::kNone;
    while (ref != Arena::kNone) {
      const Arena::Ref rest = next(ref);
      push(bucket_of(hash_of(ref)), ref);
      ref = rest;
    }
  }

  const Arena& arena_;
  std::vector<Arena::Ref, LargeAllocator<Arena::Ref>> heads_;
  size_t size_ = 0;
};

}  // namespace valfs::index
