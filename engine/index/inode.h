// An inode and a name as the index shows them: unpacked from their rows.
#pragma once

#include <atomic>
#include <cstddef>
#include <optional>
#include <string_view>

#include "engine/index/arena.h"
#include "engine/index/attributes.h"
#include "engine/index/children.h"
#include "engine/index/extent_map.h"

namespace valfs::index {

using log::ObjectId;
using log::Position;
using log::RecordSequence;

// What few inodes have: kept beside the row.
struct Extra {
  ExtentMap extents;
  uint64_t overlay_bytes = 0;
  Children children;
};

// Good until the index changes.
class Inode {
 public:
  ObjectId id = 0;
  RecordSequence sequence = 0;  // of the last record that changed it
  Position base;                // its newest INODE record; nowhere: known from other records only
  RecordSequence base_sequence = 0;  // of that record: what it does not know is younger
  Attributes attributes;
  bool sums = false;     // chunk sums of the blob with this id, not an inode of the user's
  bool damaged = false;  // a record of it is lost, and which bytes it held is unknown
  bool lossy = false;    // some of its bytes were in a log file that is lost (log::kLossy)

  const ExtentMap& extents() const { return extra_ != nullptr ? extra_->extents : own_; }
  // Log bytes written to the value since it was one extent.
  uint64_t overlay_bytes() const { return extra_ != nullptr ? extra_->overlay_bytes : 0; }
  uint64_t child_count() const { return extra_ != nullptr ? extra_->children.size() : 0; }
  bool has_names() const { return names_ != Arena::kNone; }
  // Users (the kernel's lookups) that keep it alive without names. The last two may be called
  // while the index is only locked for reading.
  uint64_t holds() const { return counter().load(std::memory_order_acquire); }
  void hold() const;
  // Returns how many there were before.
  uint64_t release(uint64_t count) const;

 private:
  friend class Index;
  friend struct InodeRow;
  std::atomic_ref<uint32_t> counter() const { return std::atomic_ref<uint32_t>(*holds_); }

  uint32_t* holds_ = nullptr;      // in the row
  Arena::Ref row_ = Arena::kNone;  // none: it is new
  Arena::Ref names_ = Arena::kNone;
  Extra* extra_ = nullptr;
  ExtentMap own_;  // of those without extra: one extent at most
};

// A directory entry. Good until it is removed.
struct Name {
  ObjectId cookie = 0;  // its place in the directory, for ever
  ObjectId parent = 0;
  ObjectId inode = 0;
  Position record;
  std::string_view name;
  Arena::Ref next_link = Arena::kNone;  // another name of the same inode
  Arena::Ref row = Arena::kNone;
};

// What is found: a copy, or nothing. Behaves like a pointer.
template <class T>
class Found : public std::optional<T> {
 public:
  using std::optional<T>::optional;
  friend bool operator==(const Found& found, std::nullptr_t) { return !found.has_value(); }
};

}  // namespace valfs::index
