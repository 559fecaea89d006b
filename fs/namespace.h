// The tree of names: what POSIX says about directories, links and attributes, each operation one
// atomic batch (P6).
//
// Thread-safe. Whatever returns a Node for the kernel to keep has raised its holds by one; if the
// reply does not get through, the caller releases it.
#pragma once

#include <string_view>

#include "engine/store.h"
#include "fs/stat_of.h"

namespace valfs::fs {

struct Caller {
  uint32_t uid = 0;
  uint32_t gid = 0;
};

// What a setattr changes.
struct AttributeChange {
  std::optional<uint32_t> mode;  // permission bits
  std::optional<uint32_t> uid;
  std::optional<uint32_t> gid;
  std::optional<uint64_t> size;
  std::optional<Time> accessed;
  std::optional<Time> modified;
};

class Namespace {
 public:
  static constexpr size_t kLongestName = 255;     // bytes; ENAMETOOLONG beyond
  static constexpr size_t kLongestTarget = 4095;  // of a symbolic link

  explicit Namespace(Store& store) : store_(store) {}

  Result<Node> lookup(log::ObjectId parent, std::string_view name);
  Result<Node> stat(log::ObjectId inode);
  // The value in bin/ that the name leads to; 0: it leads to none.
  log::ObjectId large_value(log::ObjectId parent, std::string_view name) const;

  // Regular file, FIFO, socket or device.
  Result<Node> make_node(log::ObjectId parent, std::string_view name, uint32_t mode,
                         uint64_t device, const Caller& caller);
  Result<Node> make_directory(log::ObjectId parent, std::string_view name, uint32_t mode,
                              const Caller& caller);
  Result<Node> make_symlink(log::ObjectId parent, std::string_view name, std::string_view target,
                            const Caller& caller);
  Result<Node> link(log::ObjectId inode, log::ObjectId parent, std::string_view name);
  Status unlink(log::ObjectId parent, std::string_view name);
  Status remove_directory(log::ObjectId parent, std::string_view name);
  // Flags of renameat2(2): RENAME_NOREPLACE, RENAME_EXCHANGE; others are EINVAL.
  Status rename(log::ObjectId parent, std::string_view name, log::ObjectId new_parent,
                std::string_view new_name, unsigned flags);
  Result<Node> change(log::ObjectId inode, const AttributeChange& change);
  Result<std::string> read_link(log::ObjectId inode);

 private:
  struct Victim {
    log::ObjectId inode = 0;
    log::ObjectId blob = 0;
    bool removed = false;
  };
  Result<Node> make(log::ObjectId parent, std::string_view name, index::Attributes attributes,
                    std::string_view value, const Caller& caller);
  Victim drop_link(Transaction& transaction, const index::Inode& inode, Time now);
  void finish(const Victim& victim);
  Status flush_source(log::ObjectId parent, std::string_view name);
  Status exchange(Transaction& transaction, const index::Name& a, const index::Name& b, Time now);
  uint64_t blob_bytes(const index::Attributes& attributes, log::ObjectId inode);
  Node complete(Node node);

  Store& store_;
};

}  // namespace valfs::fs
