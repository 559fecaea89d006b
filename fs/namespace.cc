#include "fs/namespace.h"

#include <sys/stat.h>

#include <cstdio>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#define RENAME_EXCHANGE (1 << 1)
#endif

namespace valfs::fs {
namespace {

using index::Attributes;
using index::Inode;
using index::Name;
using log::ObjectId;
using Purpose = log::LogWriter::Purpose;

constexpr uint32_t kMostLinks = 2'000'000'000;

bool is_directory(const Inode& inode) {
  return S_ISDIR(inode.attributes.mode);
}

Status check_name(std::string_view name) {
  if (name.size() > Namespace::kLongestName) return fail(ENAMETOOLONG, std::string(name));
  if (name.empty() || name == "." || name == "..") return fail(EINVAL, "not a name");
  return {};
}

Result<Inode> directory_in(const index::Index& index, ObjectId id) {
  const auto inode = index.find(id);
  if (inode == nullptr) return fail(ENOENT, "no such directory");
  if (!is_directory(*inode)) return fail(ENOTDIR, "not a directory");
  // A directory that was removed while somebody is in it takes nothing new.
  if (inode->attributes.links == 0) return fail(ENOENT, "the directory was removed");
  return *inode;
}

Result<Name> name_in(const index::Index& index, ObjectId parent, std::string_view name) {
  const auto found = index.find(parent, name);
  if (found == nullptr || index.find(found->inode) == nullptr) {
    return fail(ENOENT, std::string(name));
  }
  return *found;
}

// True if `directory` is `ancestor` or lies below it.
bool lies_in(const index::Index& index, ObjectId directory, ObjectId ancestor) {
  while (directory != ancestor) {
    const auto inode = index.find(directory);
    if (directory == index::kRoot || inode == nullptr || !inode->has_names()) return false;
    directory = index.first_name(*inode)->parent;
  }
  return true;
}

// Writes a directory's attributes with a changed count of subdirectories.
void change_links(Transaction& transaction, ObjectId directory, int difference, Time now) {
  Attributes attributes = transaction.index().find(directory)->attributes;
  attributes.links = static_cast<uint32_t>(static_cast<int>(attributes.links) + difference);
  attributes.touch(now);
  transaction.put(directory, attributes);
}

}  // namespace

uint64_t Namespace::blob_bytes(const Attributes& attributes, ObjectId inode) {
  return attributes.blob != 0 ? store_.stored_bytes(inode) : 0;
}

Node Namespace::complete(Node node) {
  if (node.attributes.blob != 0) node.stored = blob_bytes(node.attributes, node.id);
  return node;
}

Result<Node> Namespace::lookup(ObjectId parent, std::string_view name) {
  if (name.size() > kLongestName) return fail(ENAMETOOLONG, std::string(name));
  Result<Node> result = fail(ENOENT, "");
  store_.read_index([&](const index::Index& index) {
    const auto found = index.find(parent, name);
    const auto inode = found != nullptr ? index.find(found->inode) : index::Found<Inode>();
    if (inode == nullptr) return;
    Store::hold(*inode);
    result = node_of(*inode);
  });
  if (!result) return result;
  return complete(*result);
}

ObjectId Namespace::large_value(ObjectId parent, std::string_view name) const {
  ObjectId large = 0;
  store_.read_index([&](const index::Index& index) {
    const auto found = index.find(parent, name);
    const auto inode = found != nullptr ? index.find(found->inode) : index::Found<Inode>();
    if (inode != nullptr && inode->attributes.blob != 0) large = inode->id;
  });
  return large;
}

Result<Node> Namespace::stat(ObjectId id) {
  Result<Node> result = fail(ENOENT, "");
  store_.read_index([&](const index::Index& index) {
    const auto inode = index.find(id);
    if (inode != nullptr) result = node_of(*inode);
  });
  if (!result) return result;
  return complete(*result);
}

Result<Node> Namespace::make(ObjectId parent, std::string_view name, Attributes attributes,
                             std::string_view value, const Caller& caller) {
  VALFS_TRY(check_name(name));
  const Time now = wall_clock();
  const auto size = Transaction::Size::of(4, 2 * name.size(), value.size());
  VALFS_ASSIGN(auto transaction, store_.begin(size));
  VALFS_ASSIGN(const auto directory, directory_in(transaction.index(), parent));
  if (transaction.index().find(parent, name) != nullptr) return fail(EEXIST, std::string(name));
  attributes.uid = caller.uid;
  attributes.gid = caller.gid;
  if ((directory.attributes.mode & S_ISGID) != 0) {  // inode(7): set-group-ID directories
    attributes.gid = directory.attributes.gid;
    if (S_ISDIR(attributes.mode)) attributes.mode |= S_ISGID;
  }
  attributes.set_accessed(now);
  attributes.touch(now);
  attributes.set_born(now);
  attributes.size = value.size();
  const ObjectId id = transaction.new_object();
  transaction.put(id, attributes);
  transaction.add_name(parent, name, id);
  if (!value.empty()) transaction.write(id, 0, std::as_bytes(std::span(value)));
  if (S_ISDIR(attributes.mode)) change_links(transaction, parent, +1, now);
  Node node{id, attributes, value.size()};
  transaction.hold(id);
  transaction.commit(now);
  return node;
}

Result<Node> Namespace::make_node(ObjectId parent, std::string_view name, uint32_t mode,
                                  uint64_t device, const Caller& caller) {
  Attributes attributes;
  attributes.mode = (mode & S_IFMT) == 0 ? mode | S_IFREG : mode;
  attributes.links = 1;
  attributes.device = S_ISCHR(attributes.mode) || S_ISBLK(attributes.mode) ? device : 0;
  return make(parent, name, attributes, {}, caller);
}

Result<Node> Namespace::make_directory(ObjectId parent, std::string_view name, uint32_t mode,
                                       const Caller& caller) {
  Attributes attributes;
  attributes.mode = (mode & ~uint32_t{S_IFMT}) | S_IFDIR;
  attributes.links = 2;
  return make(parent, name, attributes, {}, caller);
}

Result<Node> Namespace::make_symlink(ObjectId parent, std::string_view name,
                                     std::string_view target, const Caller& caller) {
  if (target.size() > kLongestTarget) return fail(ENAMETOOLONG, std::string(target));
  if (target.empty()) return fail(ENOENT, "empty target");
  Attributes attributes;
  attributes.mode = S_IFLNK | 0777;
  attributes.links = 1;
  return make(parent, name, attributes, target, caller);
}

Result<Node> Namespace::link(ObjectId id, ObjectId parent, std::string_view name) {
  VALFS_TRY(check_name(name));
  const Time now = wall_clock();
  VALFS_ASSIGN(auto transaction, store_.begin(Transaction::Size::of(2, name.size(), 0)));
  VALFS_TRY(directory_in(transaction.index(), parent));
  const auto inode = transaction.index().find(id);
  if (inode == nullptr || inode->attributes.links == 0) return fail(ENOENT, "no such file");
  if (is_directory(*inode)) return fail(EPERM, "a directory has one name");
  if (inode->attributes.links >= kMostLinks) return fail(EMLINK, "too many links");
  if (transaction.index().find(parent, name) != nullptr) return fail(EEXIST, std::string(name));
  Node node = node_of(*inode);
  node.attributes.links++;
  node.attributes.set_changed(now);
  transaction.put(id, node.attributes);
  transaction.add_name(parent, name, id);
  transaction.hold(id);
  transaction.commit(now);
  return complete(node);
}

// One name less. An inode that nobody holds goes with its last name.
Namespace::Victim Namespace::drop_link(Transaction& transaction, const Inode& inode, Time now) {
  Attributes attributes = inode.attributes;
  attributes.links = is_directory(inode) ? 0 : attributes.links - 1;
  attributes.set_changed(now);
  Victim victim{inode.id, attributes.blob, attributes.links == 0 && inode.holds() == 0};
  if (!victim.removed) {
    transaction.put(inode.id, attributes);
    return victim;
  }
  transaction.remove(inode.id);
  if (victim.blob != 0) transaction.remove(victim.blob);
  return victim;
}

void Namespace::finish(const Victim& victim) {
  if (victim.removed && victim.blob != 0) store_.blob_removed(victim.blob, victim.inode);
}

Status Namespace::unlink(ObjectId parent, std::string_view name) {
  const Time now = wall_clock();
  VALFS_ASSIGN(auto transaction, store_.begin(Transaction::Size::of(3, 0, 0), Purpose::kReserve));
  VALFS_ASSIGN(const auto found, name_in(transaction.index(), parent, name));
  const Inode inode = *transaction.index().find(found.inode);
  if (is_directory(inode)) return fail(EISDIR, std::string(name));
  transaction.remove_name(found);
  const Victim victim = drop_link(transaction, inode, now);
  transaction.commit(now);
  finish(victim);
  return {};
}

Status Namespace::remove_directory(ObjectId parent, std::string_view name) {
  const Time now = wall_clock();
  VALFS_ASSIGN(auto transaction, store_.begin(Transaction::Size::of(4, 0, 0), Purpose::kReserve));
  VALFS_ASSIGN(const auto found, name_in(transaction.index(), parent, name));
  const Inode inode = *transaction.index().find(found.inode);
  if (!is_directory(inode)) return fail(ENOTDIR, std::string(name));
  if (inode.child_count() > 0) return fail(ENOTEMPTY, std::string(name));
  transaction.remove_name(found);
  drop_link(transaction, inode, now);
  change_links(transaction, parent, -1, now);
  transaction.commit(now);
  return {};
}

// Swaps what two names lead to.
Status Namespace::exchange(Transaction& transaction, const Name& a, const Name& b, Time now) {
  const index::Index& index = transaction.index();
  const Inode at_a = *index.find(a.inode);
  const Inode at_b = *index.find(b.inode);
  if (is_directory(at_a) && lies_in(index, b.parent, a.inode)) {
    return fail(EINVAL, std::string(a.name));
  }
  if (is_directory(at_b) && lies_in(index, a.parent, b.inode)) {
    return fail(EINVAL, std::string(b.name));
  }
  // The names are copied: the records that remove them come first.
  const std::string name_a(a.name);
  const std::string name_b(b.name);
  transaction.remove_name(a);
  transaction.remove_name(b);
  transaction.add_name(a.parent, name_a, b.inode);
  transaction.add_name(b.parent, name_b, a.inode);
  for (const Inode* inode : {&at_a, &at_b}) {
    Attributes attributes = inode->attributes;
    attributes.set_changed(now);
    transaction.put(inode->id, attributes);
  }
  const int moved = (is_directory(at_b) ? 1 : 0) - (is_directory(at_a) ? 1 : 0);
  if (moved != 0 && a.parent != b.parent) {
    change_links(transaction, a.parent, moved, now);
    change_links(transaction, b.parent, -moved, now);
  }
  transaction.commit(now);
  return {};
}

Status Namespace::rename(ObjectId parent, std::string_view name, ObjectId new_parent,
                         std::string_view new_name, unsigned flags) {
  if ((flags & ~unsigned{RENAME_NOREPLACE | RENAME_EXCHANGE}) != 0 ||
      flags == (RENAME_NOREPLACE | RENAME_EXCHANGE)) {
    return fail(EINVAL, "unknown flags of rename");
  }
  VALFS_TRY(check_name(new_name));
  // P5: bytes in bin/ that are not durable yet must not be outrun by the name.
  VALFS_TRY(flush_source(parent, name));
  if ((flags & RENAME_EXCHANGE) != 0) VALFS_TRY(flush_source(new_parent, new_name));
  const Time now = wall_clock();
  const auto size = Transaction::Size::of(9, name.size() + new_name.size(), 0);
  VALFS_ASSIGN(auto transaction, store_.begin(size));
  const index::Index& index = transaction.index();
  VALFS_ASSIGN(const auto from, name_in(index, parent, name));
  VALFS_TRY(directory_in(index, new_parent));
  const Inode inode = *index.find(from.inode);
  const auto to = index.find(new_parent, new_name);
  const auto target = to != nullptr ? index.find(to->inode) : index::Found<Inode>();
  if ((flags & RENAME_EXCHANGE) != 0) {
    if (target == nullptr) return fail(ENOENT, std::string(new_name));
    if (target != nullptr && target->id == inode.id) return {};
    return exchange(transaction, from, *to, now);
  }
  if (target != nullptr && (flags & RENAME_NOREPLACE) != 0) {
    return fail(EEXIST, std::string(new_name));
  }
  // rename(2): two names of one file stay as they are.
  if (target != nullptr && target->id == inode.id) return {};
  if (is_directory(inode) && lies_in(index, new_parent, inode.id)) {
    return fail(EINVAL, std::string(new_name));
  }
  if (target != nullptr) {
    if (is_directory(inode) && !is_directory(*target)) return fail(ENOTDIR, std::string(new_name));
    if (!is_directory(inode) && is_directory(*target)) return fail(EISDIR, std::string(new_name));
    if (target->child_count() > 0) return fail(ENOTEMPTY, std::string(new_name));
  }

  Victim victim;
  int old_links = 0;
  int new_links = 0;
  if (target != nullptr) {
    if (is_directory(*target)) new_links--;
    transaction.remove_name(*to);
    victim = drop_link(transaction, *target, now);
  }
  transaction.remove_name(from);
  transaction.add_name(new_parent, new_name, inode.id);
  Attributes attributes = inode.attributes;
  attributes.set_changed(now);
  transaction.put(inode.id, attributes);
  if (is_directory(inode)) {
    old_links--;
    new_links++;
  }
  if (parent == new_parent) {
    new_links += old_links;
  } else if (old_links != 0) {
    change_links(transaction, parent, old_links, now);
  }
  if (new_links != 0) change_links(transaction, new_parent, new_links, now);
  transaction.commit(now);
  finish(victim);
  return {};
}

// Flushes the value that a name leads to, if it lies in bin/ and is not durable.
Status Namespace::flush_source(ObjectId parent, std::string_view name) {
  const ObjectId large = large_value(parent, name);
  return large == 0 ? Status{} : store_.flush(large);
}

Result<Node> Namespace::change(ObjectId id, const AttributeChange& change) {
  const Time now = wall_clock();
  if (change.size) VALFS_TRY(store_.truncate(id, *change.size, now));
  const bool more = change.mode || change.uid || change.gid || change.accessed || change.modified;
  if (more || !change.size) {
    VALFS_ASSIGN(auto transaction, store_.begin(Transaction::Size::of(1, 0, 0), Purpose::kReserve));
    const auto inode = transaction.index().find(id);
    if (inode == nullptr) return fail(ENOENT, "no such file");
    Attributes attributes = inode->attributes;
    if (change.mode) attributes.mode = (attributes.mode & S_IFMT) | (*change.mode & 07777);
    if (change.uid) attributes.uid = *change.uid;
    if (change.gid) attributes.gid = *change.gid;
    if (change.accessed) attributes.set_accessed(*change.accessed);
    if (change.modified) attributes.set_modified(*change.modified);
    attributes.set_changed(now);
    transaction.put(id, attributes);
    transaction.commit(now);
  }
  return stat(id);
}

Result<std::string> Namespace::read_link(ObjectId id) {
  std::string target(kLongestTarget + 1, '\0');
  VALFS_ASSIGN(const size_t length, store_.read(id, 0, std::as_writable_bytes(std::span(target))));
  target.resize(length);
  return target;
}

}  // namespace valfs::fs
