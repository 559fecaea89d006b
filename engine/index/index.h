// The index: every inode, every name, where every value lies. In memory, changed only by applying
// records, at run time and in replay alike.
//
// There are millions of inodes, so they lie in packed rows (rows.h) and are shown unpacked: what
// find() gives is a copy, good until the index changes. A file takes about 110 bytes and its name.
//
// Not thread-safe: the Store guards it (shared for reading, exclusive for apply), except the holds
// of an Inode, which may be changed under the shared lock.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/index/hash_chains.h"
#include "engine/index/inode.h"
#include "engine/index/live_bytes.h"
#include "engine/index/rows.h"
#include "engine/log/record.h"

namespace valfs::index {

inline constexpr ObjectId kRoot = 1;
// Cookies below are "." and ".." to readdir; object ids start here.
inline constexpr ObjectId kFirstObject = 16;

// Where a record lies, and how long its parts are.
struct Placed {
  Position position;
  uint32_t meta_length = 0;
  uint32_t payload_length = 0;
};

class Index {
 public:
  enum class Mode {
    kLogOrder,       // records come as they were written: run time, and replay after a checkpoint
    kSequenceOrder,  // all records of the log, by sequence: rebuild without a checkpoint
  };

  Index() : inodes_(arena_), names_(arena_) {}
  ~Index() { clear(); }
  Index(const Index&) = delete;
  Index& operator=(const Index&) = delete;

  void clear();

  Found<Inode> find(ObjectId id) const;
  Found<Name> find(ObjectId parent, std::string_view name) const;
  // The names of an inode, in no order.
  Found<Name> first_name(const Inode& inode) const { return name_at(inode.names_); }
  Found<Name> next_name(const Name& name) const { return name_at(name.next_link); }
  size_t count_names(const Inode& inode) const;
  // The child with the lowest cookie > `cookie`; nothing at the end.
  Found<Name> next_child(const Inode& directory, ObjectId cookie) const;

  // In the order of cookies; `visit` must not change the index.
  void for_each_child(const Inode& directory, const std::function<void(const Name&)>& visit) const;

  // Changes the index as the record says. Harmless to repeat. A record type that does not concern
  // the index (MANIFEST) is ignored.
  void apply(const log::Record& record, const Placed& placed, Mode mode);

  // Has the memory fetched that applying these records will need: a hint.
  void expect(std::span<const log::Record> records) const;

  // The record has moved in the log, before it was durable.
  void relocate(const log::Record& record, Position from, const Placed& to);

  // For recovery: changes attributes and marks of an inode that is there.
  void update(ObjectId id, const std::function<void(Inode&)>& change);

  // While it is empty: room for so many, at once.
  void reserve(size_t inodes, size_t names);

  // For loading a checkpoint. What is known of the same inode or name already is replaced.
  void restore_inode(const Inode& inode, std::span<const Extent> extents);
  // The youngest record that one of those has seen.
  RecordSequence youngest_restored() const { return youngest_restored_; }
  void restore_name(const Name& name);
  // Sooner than one by one. `fresh`: none of them is known, and no two are the same.
  void restore_names(std::span<const Name> names, bool fresh);

  // Inodes that are not as they should be: without INODE record (it was lost), or without links.
  std::vector<ObjectId> unsound() const;
  // Removes one of them that has no name.
  void drop(ObjectId id);

  // Every inode or every name, in no order; `visit` must not change the index.
  void for_each_inode(const std::function<void(const Inode&)>& visit) const;
  void for_each_name(const std::function<void(const Name&)>& visit) const;
  // The same in pieces, for a checkpoint that walks the index while it changes: bucket by bucket,
  // from 0 up to the count of buckets at the end. A table that grows in between shows some
  // elements twice and none too little.
  size_t inode_buckets() const { return inodes_.buckets(); }
  size_t name_buckets() const { return names_.buckets(); }
  void visit_inode_bucket(size_t bucket, const std::function<void(const Inode&)>& visit) const;
  void visit_name_bucket(size_t bucket, const std::function<void(const Name&)>& visit) const;
  size_t inode_count() const { return inodes_.size(); }
  size_t name_count() const { return names_.size(); }

  uint64_t changes() const { return changes_; }  // rises with every change

  LiveBytes& live() { return live_; }
  const LiveBytes& live() const { return live_; }
  uint64_t memory() const;  // bytes that it takes, about

  // "a/b/c" of an inode's first name; "#<id>" where it has none.
  std::string path_of(ObjectId id) const;

 private:
  using Ref = Arena::Ref;

  Ref inode_row(ObjectId id) const;
  Ref name_row(ObjectId parent, std::string_view name, uint64_t hash) const;
  void restore_name(const Name& name, uint64_t hash);
  void add_name(const Name& name, uint64_t hash);
  Found<Name> name_at(Ref row) const;
  Inode inode_at(Ref row) const;
  static uint64_t hash_of(ObjectId parent, std::string_view name);
  uint64_t inode_hash(Ref row) const;
  uint64_t name_hash(Ref row) const;
  void set_names(ObjectId inode, Ref first);
  void add_child(ObjectId directory, const Children::Child& child);
  void set_record(const Name& name, Position record);
  void free_inode(Ref row);

  Ref add(Inode& inode);
  Ref row_or_add(ObjectId id);
  // A new one is in the index only when it has been saved.
  Inode find_or_make(ObjectId id) const;
  // Packs an inode that was changed into its row, or into another.
  void save(Inode& inode);
  static ExtentMap& extents_of(Inode& inode) {
    return inode.extra_ != nullptr ? inode.extra_->extents : inode.own_;
  }
  Extra& extra_of(Inode& inode);
  void fit_extra(Inode& inode);

  void apply_inode(const log::Record& record, const Placed& placed, Mode mode);
  void apply_extent(const log::Record& record, const Placed& placed, Mode mode);
  void apply_copy(const log::Record& record, const Extent& extent);
  void lose(ObjectId id);
  void repoint(Inode& inode, Position from, const Extent& to);
  void apply_shape(const log::Record& record, Mode mode);  // TRUNCATE, ZERO, BLOB_WRITE
  static void forget_loss(Inode& inode, Mode mode);
  void apply_name(const log::Record& record, const Placed& placed);
  void apply_unname(const log::Record& record);
  void remove_name(const Name& name);
  void remove_inode(ObjectId id);
  void touch_parent(const log::Record& record);
  void drop_extents(Inode& inode, uint64_t begin, uint64_t end);
  ExtentMap::OnRelease releaser();

  LiveBytes live_;
  Arena arena_;
  Kinds kinds_;
  HashChains inodes_;
  HashChains names_;
  uint64_t extras_ = 0;
  RecordSequence youngest_restored_ = 0;
  uint64_t changes_ = 0;
};

}  // namespace valfs::index
