#include "engine/index/index.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <unordered_set>

#include "engine/base/check.h"
#include "engine/cache/random.h"

namespace valfs::index {
namespace {

using cache::mix64;

// Ids are given out one after the other, most of the time every second one to an inode: so their
// buckets follow each other, and a walk over the buckets is a walk through memory.
uint64_t hash_of_id(ObjectId id) {
  return id >> 1;
}

constexpr auto kMostHolds = UINT32_MAX;

}  // namespace

uint64_t Index::hash_of(ObjectId parent, std::string_view name) {
  return mix64(std::hash<std::string_view>{}(name) ^ mix64(parent));
}

// Sticks at the top: an inode with so many users is never removed before the next mount.
void Inode::hold() const {
  uint32_t now = counter().load(std::memory_order_relaxed);
  while (now != kMostHolds &&
         !counter().compare_exchange_weak(now, now + 1, std::memory_order_acq_rel)) {
  }
}

uint64_t Inode::release(uint64_t count) const {
  uint32_t now = counter().load(std::memory_order_relaxed);
  while (now != kMostHolds) {
    const auto less = static_cast<uint32_t>(std::min<uint64_t>(count, now));
    if (counter().compare_exchange_weak(now, now - less, std::memory_order_acq_rel)) break;
  }
  return now;
}

void Index::clear() {
  changes_++;
  for (size_t bucket = 0; bucket < inodes_.buckets(); bucket++) {
    for (Ref row = inodes_.head(bucket); row != Arena::kNone; row = inodes_.next(row)) {
      delete inode_at(row).extra_;
    }
  }
  extras_ = 0;
  youngest_restored_ = 0;
  inodes_.clear();
  names_.clear();
  arena_.clear();
  kinds_.clear();
  live_.clear();
}

void Index::reserve(size_t inodes, size_t names) {
  inodes_.reserve(inodes);
  names_.reserve(names);
}

uint64_t Index::inode_hash(Ref row) const {
  return hash_of_id(InodeRow::id(arena_.at(row)));
}

uint64_t Index::name_hash(Ref row) const {
  const Name name = NameRow::decode(arena_.at(row), row);
  return hash_of(name.parent, name.name);
}

Index::Ref Index::inode_row(ObjectId id) const {
  Ref row = inodes_.head_for(hash_of_id(id));
  while (row != Arena::kNone && InodeRow::id(arena_.at(row)) != id) row = inodes_.next(row);
  return row;
}

Index::Ref Index::name_row(ObjectId parent, std::string_view name, uint64_t hash) const {
  Ref row = names_.head_for(hash);
  while (row != Arena::kNone && !NameRow::is(arena_.at(row), parent, name)) row = names_.next(row);
  return row;
}

Found<Name> Index::name_at(Ref row) const {
  if (row == Arena::kNone) return std::nullopt;
  return NameRow::decode(arena_.at(row), row);
}

Inode Index::inode_at(Ref row) const {
  Inode inode = InodeRow::decode(arena_.at(row), kinds_);
  inode.row_ = row;
  return inode;
}

Found<Inode> Index::find(ObjectId id) const {
  const Ref row = inode_row(id);
  if (row == Arena::kNone) return std::nullopt;
  return inode_at(row);
}

Found<Name> Index::find(ObjectId parent, std::string_view name) const {
  return name_at(name_row(parent, name, hash_of(parent, name)));
}

Found<Name> Index::next_child(const Inode& directory, ObjectId cookie) const {
  if (directory.extra_ == nullptr) return std::nullopt;
  return name_at(directory.extra_->children.after(cookie).name);
}

void Index::for_each_child(const Inode& directory,
                           const std::function<void(const Name&)>& visit) const {
  for (auto child = next_child(directory, 0); child; child = next_child(directory, child->cookie)) {
    visit(*child);
  }
}

size_t Index::count_names(const Inode& inode) const {
  size_t count = 0;
  for (auto name = first_name(inode); name; name = next_name(*name)) count++;
  return count;
}

Index::Ref Index::add(Inode& inode) {
  fit_extra(inode);
  std::array<std::byte, InodeRow::kLongest> bytes;
  const size_t length = InodeRow::encode(inode, kinds_, bytes);
  const Ref row = arena_.allocate(length);
  std::memcpy(arena_.at(row), bytes.data(), length);
  inodes_.insert(row, hash_of_id(inode.id), [this](Ref element) { return inode_hash(element); });
  return row;
}

Index::Ref Index::row_or_add(ObjectId id) {
  if (const Ref known = inode_row(id); known != Arena::kNone) return known;
  Inode inode;
  inode.id = id;
  return add(inode);
}

Inode Index::find_or_make(ObjectId id) const {
  if (const Ref known = inode_row(id); known != Arena::kNone) return inode_at(known);
  Inode inode;
  inode.id = id;
  return inode;
}

Extra& Index::extra_of(Inode& inode) {
  if (inode.extra_ == nullptr) {
    inode.extra_ = new Extra;
    std::swap(inode.extra_->extents, inode.own_);
    extras_++;
  }
  return *inode.extra_;
}

// What has more than a row holds gets an extra, and what no longer needs it loses it.
void Index::fit_extra(Inode& inode) {
  if (inode.extra_ == nullptr) {
    if (inode.own_.all().size() > 1) extra_of(inode);
    return;
  }
  Extra& extra = *inode.extra_;
  const bool plain = extra.extents.all().size() <= 1 && extra.overlay_bytes == 0;
  if (!plain || !extra.children.empty()) return;
  std::swap(inode.own_, extra.extents);
  delete inode.extra_;
  inode.extra_ = nullptr;
  extras_--;
}

void Index::save(Inode& inode) {
  const Ref old = inode.row_;
  if (old == Arena::kNone) {
    inode.row_ = add(inode);
    return;
  }
  fit_extra(inode);
  InodeRow header;
  std::memcpy(&header, arena_.at(old), sizeof header);
  std::array<std::byte, InodeRow::kLongest> bytes;
  const size_t length = InodeRow::encode(inode, kinds_, bytes);
  Ref row = old;
  if (Arena::rounded(length) != Arena::rounded(header.length)) {
    row = arena_.allocate(length);
    inodes_.replace(old, row, hash_of_id(inode.id));
    inode.row_ = row;
    arena_.free(old, header.length);
  }
  InodeRow packed;
  std::memcpy(&packed, bytes.data(), sizeof packed);
  packed.next = inodes_.next(row);
  packed.holds = header.holds;
  packed.names = header.names;
  std::memcpy(bytes.data(), &packed, sizeof packed);
  std::memcpy(arena_.at(row), bytes.data(), length);
}

void Index::update(ObjectId id, const std::function<void(Inode&)>& change) {
  changes_++;
  auto inode = find(id);
  VALFS_CHECK(inode.has_value());
  change(*inode);
  save(*inode);
}

void Index::set_names(ObjectId inode, Ref first) {
  InodeRow::set_first_name(arena_.at(inode_row(inode)), first);
}

void Index::set_record(const Name& name, Position record) {
  if (name.record) live_.subtract(name.record.file(), log::name_record_length(name.name.size()));
  if (record) live_.add(record.file(), log::name_record_length(name.name.size()));
  std::memcpy(arena_.at(name.row) + offsetof(NameRow, record), &record, sizeof record);
}

ExtentMap::OnRelease Index::releaser() {
  return [this](const ExtentMap::Released& released) {
    if (released.record) live_.subtract(released.record.file(), released.bytes);
  };
}

void Index::drop_extents(Inode& inode, uint64_t begin, uint64_t end) {
  extents_of(inode).cut(begin, end, releaser());
}

void Index::free_inode(Ref row) {
  uint16_t length;
  std::memcpy(&length, arena_.at(row) + offsetof(InodeRow, length), sizeof length);
  inodes_.erase(row, inode_hash(row));
  arena_.free(row, length);
}

void Index::remove_inode(ObjectId id) {
  auto inode = find(id);
  if (!inode) return;
  drop_extents(*inode, 0, UINT64_MAX);
  if (inode->base) live_.subtract(inode->base.file(), log::inode_record_length());
  // None are left, unless the records that took them away are damaged: no name leads nowhere, and
  // what was in a directory that is gone can be found without it.
  while (const auto name = first_name(*inode)) {
    remove_name(*name);
    inode = find(id);  // that changed it
  }
  while (const auto child = next_child(*inode, 0)) {
    remove_name(*child);
    inode = find(id);
  }
  const Ref row = inode_row(id);
  if (Extra* extra = inode_at(row).extra_) {
    delete extra;
    extras_--;
  }
  free_inode(row);
}

void Index::remove_name(const Name& name) {
  if (name.record) live_.subtract(name.record.file(), log::name_record_length(name.name.size()));
  if (auto parent = find(name.parent); parent && parent->extra_ != nullptr) {
    parent->extra_->children.erase(name.cookie);
    if (parent->extra_->children.empty()) save(*parent);
  }
  if (const auto inode = find(name.inode)) {
    Ref before = Arena::kNone;
    Ref at = inode->names_;
    while (at != Arena::kNone && at != name.row) {
      before = at;
      at = name_at(at)->next_link;
    }
    if (at != Arena::kNone && before == Arena::kNone) {
      set_names(name.inode, name.next_link);
    } else if (at != Arena::kNone) {
      std::memcpy(arena_.at(before) + offsetof(NameRow, next_link), &name.next_link,
                  sizeof name.next_link);
    }
  }
  const size_t length = NameRow::length(arena_.at(name.row));
  names_.erase(name.row, name_hash(name.row));
  arena_.free(name.row, length);
}

void Index::restore_name(const Name& name) {
  changes_++;
  restore_name(name, hash_of(name.parent, name.name));
}

// Each step for many names, so that the memory which the next needs is on its way meanwhile.
void Index::restore_names(std::span<const Name> names, bool fresh) {
  changes_++;
  constexpr size_t kBatch = 64;
  std::array<uint64_t, kBatch> hashes;
  for (; !names.empty(); names = names.subspan(std::min(kBatch, names.size()))) {
    const auto batch = names.first(std::min(kBatch, names.size()));
    for (size_t i = 0; i < batch.size(); i++) {
      hashes[i] = hash_of(batch[i].parent, batch[i].name);
      names_.prefetch_head(hashes[i]);
    }
    if (fresh) {
      for (size_t i = 0; i < batch.size(); i++) add_name(batch[i], hashes[i]);
      continue;
    }
    for (size_t i = 0; i < batch.size(); i++) names_.prefetch_chain(hashes[i]);
    for (size_t i = 0; i < batch.size(); i++) restore_name(batch[i], hashes[i]);
  }
}

void Index::restore_name(const Name& from, uint64_t hash) {
  if (const Ref known = name_row(from.parent, from.name, hash); known != Arena::kNone) {
    remove_name(*name_at(known));
  }
  const Ref parent = inode_row(from.parent);
  if (const Extra* extra = parent != Arena::kNone ? InodeRow::extra(arena_.at(parent)) : nullptr) {
    const Ref taken = extra->children.find(from.cookie);  // a cookie has one name
    if (taken != Arena::kNone) remove_name(*name_at(taken));
  }
  add_name(from, hash);
}

void Index::add_name(const Name& from, uint64_t hash) {
  (void)row_or_add(from.parent);
  std::array<std::byte, NameRow::kLongest> head;
  const size_t head_length = NameRow::encode(from, head);
  const Ref row = arena_.allocate(head_length + from.name.size());
  std::byte* at = arena_.at(row);
  std::memcpy(at, head.data(), head_length);
  std::memcpy(at + head_length, from.name.data(), from.name.size());
  std::byte* inode = arena_.at(row_or_add(from.inode));
  const Ref other = InodeRow::first_name(inode);
  std::memcpy(at + offsetof(NameRow, next_link), &other, sizeof other);
  InodeRow::set_first_name(inode, row);
  add_child(from.parent, {from.cookie, row});
  if (from.record) live_.add(from.record.file(), log::name_record_length(from.name.size()));
  names_.insert(row, hash, [this](Ref element) { return name_hash(element); });
}

void Index::add_child(ObjectId directory, const Children::Child& child) {
  const Ref row = inode_row(directory);
  if (Extra* extra = InodeRow::extra(arena_.at(row))) {
    extra->children.insert(child);
    return;
  }
  Inode inode = inode_at(row);
  extra_of(inode).children.insert(child);
  save(inode);
}

void Index::restore_inode(const Inode& from, std::span<const Extent> extents) {
  changes_++;
  youngest_restored_ = std::max(youngest_restored_, from.sequence);
  Inode inode = find_or_make(from.id);
  if (inode.row_ != Arena::kNone) drop_extents(inode, 0, UINT64_MAX);
  if (inode.base) live_.subtract(inode.base.file(), log::inode_record_length());
  inode.sequence = from.sequence;
  inode.base = from.base;
  inode.base_sequence = from.base_sequence;
  inode.attributes = from.attributes;
  inode.sums = from.sums;
  inode.damaged = from.damaged;
  inode.lossy = from.lossy;
  if (inode.base) live_.add(inode.base.file(), log::inode_record_length());
  std::unordered_set<uint64_t> seen;  // records
  for (const Extent& extent : extents) {
    extents_of(inode).insert(extent, releaser());
    const bool counted = extents.size() > 1 && !seen.insert(extent.record.packed).second;
    if (extent.record) {
      live_.add(extent.record.file(), extent.own_bytes() + (counted ? 0 : extent.shared_bytes()));
    }
  }
  save(inode);
}

std::vector<ObjectId> Index::unsound() const {
  std::vector<ObjectId> ids;
  for (size_t bucket = 0; bucket < inodes_.buckets(); bucket++) {
    for (Ref row = inodes_.head(bucket); row != Arena::kNone; row = inodes_.next(row)) {
      if (InodeRow::is_plain(arena_.at(row))) continue;
      const Inode inode = inode_at(row);
      const bool sound = inode.base && inode.attributes.links != 0;
      if (!sound && !inode.sums && inode.id != kRoot) ids.push_back(inode.id);
    }
  }
  return ids;
}

void Index::drop(ObjectId id) {
  changes_++;
  const auto inode = find(id);
  VALFS_CHECK(inode && !inode->has_names());
  remove_inode(id);
}

void Index::for_each_inode(const std::function<void(const Inode&)>& visit) const {
  for (size_t bucket = 0; bucket < inodes_.buckets(); bucket++) visit_inode_bucket(bucket, visit);
}

void Index::for_each_name(const std::function<void(const Name&)>& visit) const {
  for (size_t bucket = 0; bucket < names_.buckets(); bucket++) visit_name_bucket(bucket, visit);
}

void Index::visit_name_bucket(size_t bucket, const std::function<void(const Name&)>& visit) const {
  for (Ref row = names_.head(bucket); row != Arena::kNone; row = names_.next(row)) {
    visit(*name_at(row));
  }
}

void Index::visit_inode_bucket(size_t bucket,
                               const std::function<void(const Inode&)>& visit) const {
  for (Ref row = inodes_.head(bucket); row != Arena::kNone; row = inodes_.next(row)) {
    visit(inode_at(row));
  }
}

uint64_t Index::memory() const {
  return arena_.memory() + inodes_.memory() + names_.memory() + extras_ * sizeof(Extra);
}

std::string Index::path_of(ObjectId id) const {
  std::string path;
  constexpr int kDeepest = 4096;  // a damaged volume might hold a loop
  for (int depth = 0; id != kRoot && depth < kDeepest; depth++) {
    const auto inode = find(id);
    const auto name = inode ? first_name(*inode) : Found<Name>();
    if (!name) return "#" + std::to_string(id) + (path.empty() ? "" : "/" + path);
    path = path.empty() ? std::string(name->name) : std::string(name->name) + "/" + path;
    id = name->parent;
  }
  return path;
}

}  // namespace valfs::index
