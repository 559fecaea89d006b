#include "engine/index/index.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"

namespace valfs::index {
namespace {

constexpr size_t kFirstBuckets = 64;

uint64_t mix(uint64_t value) {  // finalizer of splitmix64 (Steele, Lea, Flood, OOPSLA 2014)
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

// A bucket table of twice the size once there is an element per bucket.
template <class Table, class Buckets>
void grow_table(Table& table, Buckets& buckets) {
  if (table.size() < table.bucket_count()) return;
  const size_t count = table.bucket_count() * 2;
  auto larger = std::make_unique<typename Table::bucket_type[]>(count);
  table.rehash({larger.get(), count});
  buckets = std::move(larger);
}

}  // namespace

size_t Index::IdHash::operator()(ObjectId id) const {
  return mix(id);
}

size_t Index::NameHash::operator()(const NameKey& key) const {
  return mix(std::hash<std::string_view>{}(key.name) ^ mix(key.parent));
}

Index::Index()
    : inode_buckets_(std::make_unique<Inodes::bucket_type[]>(kFirstBuckets)),
      name_buckets_(std::make_unique<Names::bucket_type[]>(kFirstBuckets)),
      inodes_({inode_buckets_.get(), kFirstBuckets}),
      names_({name_buckets_.get(), kFirstBuckets}) {}

Index::~Index() {
  clear();
}

void Index::clear() {
  for (Inode& inode : inodes_) inode.children.clear();
  names_.clear_and_dispose([](Name* name) { delete name; });
  inodes_.clear_and_dispose([](Inode* inode) { delete inode; });
  live_.clear();
}

void Index::grow() {
  grow_table(inodes_, inode_buckets_);
  grow_table(names_, name_buckets_);
}

Inode* Index::find(ObjectId id) const {
  const auto found = inodes_.find(id);
  return found == inodes_.end() ? nullptr : const_cast<Inode*>(&*found);
}

Name* Index::find(ObjectId parent, std::string_view name) const {
  const auto found = names_.find(NameKey{parent, name});
  return found == names_.end() ? nullptr : const_cast<Name*>(&*found);
}

const Name* Index::next_child(const Inode& directory, ObjectId cookie) const {
  const auto next = directory.children.upper_bound(cookie);
  return next == directory.children.end() ? nullptr : &*next;
}

Inode& Index::find_or_add(ObjectId id) {
  if (Inode* inode = find(id)) return *inode;
  auto inode = std::make_unique<Inode>(id);
  inodes_.insert(*inode);
  grow();
  return *inode.release();
}

ExtentMap::OnRelease Index::releaser() {
  return [this](const ExtentMap::Released& released) {
    if (released.record) live_.subtract(released.record.file(), released.bytes);
  };
}

void Index::drop_extents(Inode& inode, uint64_t begin, uint64_t end) {
  inode.extents.cut(begin, end, releaser());
}

void Index::remove_inode(Inode& inode) {
  drop_extents(inode, 0, UINT64_MAX);
  if (inode.base) live_.subtract(inode.base.file(), log::inode_record_length());
  // None are left, unless the records that took them away are damaged: no name leads nowhere, and
  // what was in a directory that is gone can be found without it.
  while (inode.names != nullptr) remove_name(*inode.names);
  while (!inode.children.empty()) remove_name(*inode.children.begin());
  inodes_.erase_and_dispose(inodes_.iterator_to(inode), [](Inode* dead) { delete dead; });
}

void Index::remove_name(Name& name) {
  if (name.record) live_.subtract(name.record.file(), log::name_record_length(name.name.size()));
  if (Inode* parent = find(name.parent)) parent->children.erase(name.cookie);
  if (Inode* inode = find(name.inode)) {
    Name** link = &inode->names;
    while (*link != nullptr && *link != &name) link = &(*link)->next_link;
    if (*link != nullptr) *link = name.next_link;
  }
  names_.erase_and_dispose(names_.iterator_to(name), [](Name* dead) { delete dead; });
}

void Index::restore_name(const Name& from) {
  if (Name* known = find(from.parent, from.name)) remove_name(*known);
  if (const Inode* parent = find(from.parent)) {  // a cookie has one name
    const auto taken = parent->children.find(from.cookie);
    if (taken != parent->children.end()) remove_name(const_cast<Name&>(*taken));
  }
  auto name = std::make_unique<Name>();
  name->cookie = from.cookie;
  name->parent = from.parent;
  name->inode = from.inode;
  name->record = from.record;
  name->name = from.name;
  Inode& inode = find_or_add(name->inode);
  name->next_link = inode.names;
  inode.names = name.get();
  find_or_add(name->parent).children.insert(*name);
  if (name->record) live_.add(name->record.file(), log::name_record_length(name->name.size()));
  names_.insert(*name.release());
  grow();
}

Inode& Index::restore_inode(ObjectId id, RecordSequence sequence, Position base,
                            RecordSequence base_sequence, const Attributes& attributes,
                            std::span<const Extent> extents) {
  Inode& inode = find_or_add(id);
  drop_extents(inode, 0, UINT64_MAX);
  if (inode.base) live_.subtract(inode.base.file(), log::inode_record_length());
  inode.sequence = sequence;
  inode.base = base;
  inode.base_sequence = base_sequence;
  inode.attributes = attributes;
  if (base) live_.add(base.file(), log::inode_record_length());
  std::vector<Position> seen;
  for (const Extent& extent : extents) {
    inode.extents.insert(extent, releaser());
    const bool known = std::find(seen.begin(), seen.end(), extent.record) != seen.end();
    if (!known) seen.push_back(extent.record);
    if (extent.record) {
      live_.add(extent.record.file(), extent.own_bytes() + (known ? 0 : extent.shared_bytes()));
    }
  }
  return inode;
}

std::vector<ObjectId> Index::incomplete() const {
  std::vector<ObjectId> ids;
  for_each_inode([&](const Inode& inode) {
    if (!inode.base && !inode.sums && inode.id != kRoot) ids.push_back(inode.id);
  });
  return ids;
}

void Index::drop(ObjectId id) {
  Inode* inode = find(id);
  VALFS_CHECK(inode != nullptr && inode->names == nullptr);
  remove_inode(*inode);
}

void Index::for_each_inode(const std::function<void(Inode&)>& visit) const {
  for (const Inode& inode : inodes_) visit(const_cast<Inode&>(inode));
}

void Index::for_each_name(const std::function<void(const Name&)>& visit) const {
  for (const Name& name : names_) visit(name);
}

void Index::visit_inode_bucket(size_t bucket,
                               const std::function<void(const Inode&)>& visit) const {
  for (auto it = inodes_.begin(bucket); it != inodes_.end(bucket); ++it) visit(*it);
}

void Index::visit_name_bucket(size_t bucket, const std::function<void(const Name&)>& visit) const {
  for (auto it = names_.begin(bucket); it != names_.end(bucket); ++it) visit(*it);
}

std::string Index::path_of(ObjectId id) const {
  std::string path;
  constexpr int kDeepest = 4096;  // a damaged volume might hold a loop
  for (int depth = 0; id != kRoot && depth < kDeepest; depth++) {
    const Inode* inode = find(id);
    if (inode == nullptr || inode->names == nullptr) {
      return "#" + std::to_string(id) + (path.empty() ? "" : "/" + path);
    }
    path = path.empty() ? inode->names->name : inode->names->name + "/" + path;
    id = inode->names->parent;
  }
  return path;
}

}  // namespace valfs::index
