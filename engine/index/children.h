// The names of a directory in the order of their cookies: a list of leaves, each a sorted array.
// About 8 bytes a name; finding one is a binary search, and names are mostly added at the end.
//
// Not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/index/arena.h"
#include "engine/log/format.h"

namespace valfs::index {

class Children {
 public:
  using Cookie = log::ObjectId;
  struct Child {
    Cookie cookie = 0;
    Arena::Ref name = Arena::kNone;
    friend bool operator==(const Child&, const Child&) = default;
  };

  // False if the cookie is taken.
  bool insert(const Child& child);
  void erase(Cookie cookie);
  Arena::Ref find(Cookie cookie) const;  // kNone: not there
  // The child with the lowest cookie > `cookie`; {}: there is none.
  Child after(Cookie cookie) const;
  uint64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  uint64_t memory() const;  // bytes, about

 private:
  // Entries of a leaf have cookies less than 2^32 apart.
  struct Entry {
    uint32_t cookie;  // from the leaf's first
    Arena::Ref name;
  };
  struct Leaf {
    Cookie first = 0;  // no entry has a lower one
    std::vector<Entry> entries;
  };

  size_t leaf_of(Cookie cookie) const;
  static std::vector<Entry>::const_iterator place_in(const Leaf& leaf, Cookie cookie);
  void split(size_t index, size_t at);
  void merge(size_t index);

  std::vector<Leaf> leaves_;  // by `first`; none is empty
  uint64_t size_ = 0;
};

}  // namespace valfs::index
