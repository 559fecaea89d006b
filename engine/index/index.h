// The index: every inode, every name, where every value lies. In memory, changed only by applying
// records, at run time and in replay alike.
//
// Not thread-safe: the Store guards it (shared for reading, exclusive for apply), except
// Inode::holds, which may be changed under the shared lock. Pointers stay good until the inode or
// name is removed.
#pragma once

#include <atomic>
#include <boost/intrusive/set.hpp>
#include <boost/intrusive/unordered_set.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/index/attributes.h"
#include "engine/index/extent_map.h"
#include "engine/index/live_bytes.h"
#include "engine/log/record.h"

namespace valfs::index {

using log::ObjectId;
using log::Position;
using log::RecordSequence;

inline constexpr ObjectId kRoot = 1;
// Cookies below are "." and ".." to readdir; object ids start here.
inline constexpr ObjectId kFirstObject = 16;

// A directory entry.
struct Name {
  boost::intrusive::unordered_set_member_hook<> by_name;
  boost::intrusive::set_member_hook<boost::intrusive::optimize_size<true>> by_cookie;
  ObjectId cookie = 0;  // its place in the directory, for ever
  ObjectId parent = 0;
  ObjectId inode = 0;
  Position record;
  Name* next_link = nullptr;  // another name of the same inode
  std::string name;
};

struct CookieOf {
  using type = ObjectId;
  const ObjectId& operator()(const Name& name) const { return name.cookie; }
};
using Children = boost::intrusive::set<
    Name, boost::intrusive::key_of_value<CookieOf>,
    boost::intrusive::member_hook<
        Name, boost::intrusive::set_member_hook<boost::intrusive::optimize_size<true>>,
        &Name::by_cookie>>;

struct Inode {
  explicit Inode(ObjectId inode_id) : id(inode_id) {}

  boost::intrusive::unordered_set_member_hook<> by_id;
  const ObjectId id;
  RecordSequence sequence = 0;  // of the last record that changed it
  Position base;                // its newest INODE record; nowhere: known from other records only
  RecordSequence base_sequence = 0;  // of that record: what it does not know is younger
  Attributes attributes;
  // Users (the kernel's lookups) that keep an inode without names alive.
  std::atomic<uint64_t> holds{0};
  ExtentMap extents;
  uint64_t overlay_bytes = 0;  // log bytes written to the value since it was one extent
  Name* names = nullptr;
  Children children;     // of a directory
  bool sums = false;     // chunk sums of the blob with this id, not an inode of the user's
  bool damaged = false;  // a record of it is lost, and which bytes it held is unknown
  bool lossy = false;    // some of its bytes were in a log file that is lost (log::kLossy)
};

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

  Index();
  ~Index();
  Index(const Index&) = delete;
  Index& operator=(const Index&) = delete;

  void clear();

  Inode* find(ObjectId id) const;
  Name* find(ObjectId parent, std::string_view name) const;
  // The child with the lowest cookie > `cookie`; null at the end.
  const Name* next_child(const Inode& directory, ObjectId cookie) const;

  // Changes the index as the record says. Harmless to repeat. A record type that does not concern
  // the index (MANIFEST) is ignored.
  void apply(const log::Record& record, const Placed& placed, Mode mode);

  // The record has moved in the log, before it was durable.
  void relocate(const log::Record& record, Position from, const Placed& to);

  // For loading a checkpoint. What is known of the same inode or name already is replaced.
  Inode& restore_inode(ObjectId id, RecordSequence sequence, Position base,
                       RecordSequence base_sequence, const Attributes& attributes,
                       std::span<const Extent> extents);
  void restore_name(const Name& name);

  // Inodes without INODE record: it was lost.
  std::vector<ObjectId> incomplete() const;
  // Removes one of them that has no name.
  void drop(ObjectId id);

  // Every inode or every name, in no order; `visit` must not change the index.
  void for_each_inode(const std::function<void(Inode&)>& visit) const;
  void for_each_name(const std::function<void(const Name&)>& visit) const;
  // The same in pieces, for a checkpoint that walks the index while it changes: bucket by bucket,
  // from 0 up to the count of buckets at the end. A table that grows in between shows some
  // elements twice and none too little.
  size_t inode_buckets() const { return inodes_.bucket_count(); }
  size_t name_buckets() const { return names_.bucket_count(); }
  void visit_inode_bucket(size_t bucket, const std::function<void(const Inode&)>& visit) const;
  void visit_name_bucket(size_t bucket, const std::function<void(const Name&)>& visit) const;
  size_t inode_count() const { return inodes_.size(); }
  size_t name_count() const { return names_.size(); }

  LiveBytes& live() { return live_; }
  const LiveBytes& live() const { return live_; }

  // "a/b/c" of an inode's first name; "#<id>" where it has none.
  std::string path_of(ObjectId id) const;

 private:
  struct IdHash {
    size_t operator()(ObjectId id) const;
  };
  struct IdOf {
    using type = ObjectId;
    const ObjectId& operator()(const Inode& inode) const { return inode.id; }
  };
  struct NameKey {
    ObjectId parent;
    std::string_view name;
    friend bool operator==(const NameKey&, const NameKey&) = default;
  };
  struct NameKeyOf {
    using type = NameKey;
    NameKey operator()(const Name& name) const { return {name.parent, name.name}; }
  };
  struct NameHash {
    size_t operator()(const NameKey& key) const;
  };
  using Inodes = boost::intrusive::unordered_set<
      Inode, boost::intrusive::key_of_value<IdOf>, boost::intrusive::hash<IdHash>,
      boost::intrusive::power_2_buckets<true>,
      boost::intrusive::member_hook<Inode, boost::intrusive::unordered_set_member_hook<>,
                                    &Inode::by_id>>;
  using Names = boost::intrusive::unordered_set<
      Name, boost::intrusive::key_of_value<NameKeyOf>, boost::intrusive::hash<NameHash>,
      boost::intrusive::power_2_buckets<true>,
      boost::intrusive::member_hook<Name, boost::intrusive::unordered_set_member_hook<>,
                                    &Name::by_name>>;

  Inode& find_or_add(ObjectId id);
  void apply_inode(const log::Record& record, const Placed& placed, Mode mode);
  void apply_extent(const log::Record& record, const Placed& placed, Mode mode);
  void lose(ObjectId id);
  void repoint(Inode& inode, Position from, const Extent& to);
  void apply_shape(const log::Record& record, Mode mode);  // TRUNCATE, ZERO, BLOB_WRITE
  static void forget_loss(Inode& inode, Mode mode);
  void apply_name(const log::Record& record, const Placed& placed);
  void apply_unname(const log::Record& record);
  void remove_name(Name& name);
  void remove_inode(Inode& inode);
  void touch_parent(const log::Record& record);
  void drop_extents(Inode& inode, uint64_t begin, uint64_t end);
  ExtentMap::OnRelease releaser();
  void grow();

  LiveBytes live_;
  std::unique_ptr<Inodes::bucket_type[]> inode_buckets_;
  std::unique_ptr<Names::bucket_type[]> name_buckets_;
  Inodes inodes_;
  Names names_;
};

}  // namespace valfs::index
