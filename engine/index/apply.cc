// What each record does to the index. The rules that make it harmless to see a record twice, or
// late, stand here; engine/README.md says why they are enough.
#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/planted.h"
#include "engine/index/index.h"

namespace valfs::index {

using log::Record;
using log::RecordType;

namespace {

// No value has bytes beyond this (off_t); a record that says so is nonsense.
bool is_in_range(const Record& record, const Placed& placed) {
  constexpr uint64_t kEnd = INT64_MAX;
  switch (record.type) {
    case RecordType::kExtent:
      return record.a <= kEnd - placed.payload_length;
    case RecordType::kTruncate:
      return record.a <= kEnd;
    case RecordType::kZero:
    case RecordType::kBlobWrite:
      return record.a <= kEnd && record.b <= kEnd - record.a;
    default:
      return true;
  }
}

}  // namespace

void Index::apply(const Record& record, const Placed& placed, Mode mode) {
  if (!is_in_range(record, placed)) return;
  switch (record.type) {
    case RecordType::kInode:
      return apply_inode(record, placed, mode);
    case RecordType::kExtent:
      return apply_extent(record, placed, mode);
    case RecordType::kTruncate:
    case RecordType::kZero:
    case RecordType::kBlobWrite:
      return apply_shape(record, mode);
    case RecordType::kName:
      return apply_name(record, placed);
    case RecordType::kUnname:
      return apply_unname(record);
    case RecordType::kRemove:
      if (Inode* inode = find(record.id)) remove_inode(*inode);
      return;
    case RecordType::kBlobSync:
    case RecordType::kManifest:
      return;
  }
}

// The value is whole again: nothing of what was lost is part of it.
void Index::forget_loss(Inode& inode, Mode mode) {
  if (!inode.lossy) return;
  inode.lossy = false;
  if (mode == Mode::kSequenceOrder) inode.damaged = false;
}

void Index::apply_inode(const Record& record, const Placed& placed, Mode mode) {
  Inode& inode = find_or_add(record.id);
  if (record.sequence < inode.sequence) {
    // Something newer is known. A record that gives what nothing else has is still of use.
    if (inode.base || record.body.size() != sizeof(Attributes)) return;
    const uint64_t size = inode.attributes.size;
    std::memcpy(&inode.attributes, record.body.data(), sizeof(Attributes));
    inode.attributes.size = std::max(inode.attributes.size, size);
  } else {
    if (record.body.size() != sizeof(Attributes)) return;
    std::memcpy(&inode.attributes, record.body.data(), sizeof(Attributes));
    inode.sequence = record.sequence;
  }
  if ((record.flags & log::kLossy) != 0) {
    inode.lossy = true;
    // After a checkpoint its extents tell which bytes are lost; here nothing does.
    inode.damaged |= mode == Mode::kSequenceOrder;
  }
  if (inode.base) live_.subtract(inode.base.file(), log::inode_record_length());
  inode.base = placed.position;
  inode.base_sequence = record.sequence;
  live_.add(inode.base.file(), log::inode_record_length());
  // A value that has moved to a blob has nothing in the log.
  if (inode.attributes.blob != 0) drop_extents(inode, 0, UINT64_MAX);
}

void Index::apply_extent(const Record& record, const Placed& placed, Mode mode) {
  const bool copy = (record.flags & log::kCopy) != 0;
  const Extent extent{record.a, placed.payload_length, placed.meta_length, placed.meta_length,
                      placed.position};
  if (copy && mode == Mode::kLogOrder) {
    Inode* inode = find(record.id);
    if (planted(Bug::kUpdateIndexBlindly) && inode != nullptr) {
      inode->extents.insert(extent, releaser());
      live_.add(placed.position.file(), extent.length + extent.meta);
      return;
    }
    if (inode == nullptr || record.body.size() != sizeof(Position)) return;
    Position old;
    std::memcpy(&old, record.body.data(), sizeof old);
    const uint64_t moved = inode->extents.repoint(old, extent, releaser());
    if (moved > 0) live_.add(placed.position.file(), moved + placed.meta_length);
    return;
  }
  Inode& inode = find_or_add(record.id);
  inode.sums |= (record.flags & log::kSums) != 0;
  if (mode == Mode::kLogOrder && record.sequence <= inode.sequence) return;
  inode.extents.insert(extent, releaser());
  if (extent.length > 0) live_.add(placed.position.file(), extent.length + extent.meta);
  const bool whole = extent.offset == 0 && extent.end() >= inode.attributes.size;
  if (whole) forget_loss(inode, mode);
  inode.overlay_bytes = whole ? 0 : inode.overlay_bytes + extent.length + extent.meta;
  inode.attributes.size = std::max(inode.attributes.size, extent.end());
  if (record.sequence >= inode.sequence) {
    inode.attributes.touch(record.time);
    inode.sequence = record.sequence;
  }
}

void Index::relocate(const Record& record, Position from, const Placed& to) {
  if (record.type == RecordType::kName) {
    Name* name = find(record.b, record.name);
    if (name == nullptr || name->record != from) return;
    live_.subtract(from.file(), log::name_record_length(name->name.size()));
    name->record = to.position;
    live_.add(to.position.file(), log::name_record_length(name->name.size()));
    return;
  }
  Inode* inode = find(record.id);
  if (inode == nullptr) return;
  if (record.type == RecordType::kInode && inode->base == from) {
    live_.subtract(from.file(), log::inode_record_length());
    inode->base = to.position;
    live_.add(to.position.file(), log::inode_record_length());
  } else if (record.type == RecordType::kExtent) {
    const Extent whole{record.a, to.payload_length, to.meta_length, to.meta_length, to.position};
    const uint64_t moved = inode->extents.repoint(from, whole, releaser());
    if (moved > 0) live_.add(to.position.file(), moved + to.meta_length);
  }
}

void Index::apply_shape(const Record& record, Mode mode) {
  Inode* inode = &find_or_add(record.id);
  // By sequence nothing younger is known; the inode's attributes may have been written anew under
  // this very sequence, and yet this record has bytes to drop.
  if (mode == Mode::kLogOrder && record.sequence <= inode->sequence) return;
  Attributes& attributes = inode->attributes;
  if (record.type == RecordType::kTruncate) {
    drop_extents(*inode, record.a, UINT64_MAX);
    attributes.size = record.a;
    if (record.a == 0) {
      inode->damaged = false;
      inode->lossy = false;
    }
  } else if (record.type == RecordType::kZero) {
    drop_extents(*inode, record.a, record.a + record.b);
  } else {
    attributes.size = std::max(attributes.size, record.a + record.b);
  }
  if (record.time != Time{}) attributes.touch(record.time);
  inode->sequence = record.sequence;
}

void Index::touch_parent(const Record& record) {
  Inode* parent = find(record.b);
  // A copy's touch is in the INODE record that the cleaner has written with it.
  if (parent == nullptr || (record.flags & log::kCopy) != 0) return;
  if (record.sequence <= parent->sequence) return;
  parent->attributes.touch(record.time);
  parent->sequence = record.sequence;
}

void Index::apply_name(const Record& record, const Placed& placed) {
  Inode& parent = find_or_add(record.b);
  touch_parent(record);
  if (Name* known = find(record.b, record.name)) {
    if (known->cookie > record.id) return;  // replaced since
    if (known->cookie == record.id) {       // a copy, or seen before
      live_.subtract(known->record.file(), log::name_record_length(known->name.size()));
      known->record = placed.position;
      live_.add(placed.position.file(), log::name_record_length(known->name.size()));
      return;
    }
    remove_name(*known);
  }
  // A cookie is unique in its directory; one that is taken was renamed in place by a later record.
  if (parent.children.find(record.id) != parent.children.end()) return;
  Name name;
  name.cookie = record.id;
  name.parent = record.b;
  name.inode = record.a;
  name.record = placed.position;
  name.name = record.name;
  restore_name(name);
}

void Index::apply_unname(const Record& record) {
  touch_parent(record);
  Inode* parent = find(record.b);
  if (parent == nullptr) return;
  const auto found = parent->children.find(record.id);
  if (found != parent->children.end()) remove_name(*found);
}

}  // namespace valfs::index
