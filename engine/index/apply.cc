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

// The run that a record is as long as all of it counts. Nothing if it is compressed and makes no
// sense.
std::optional<Extent> extent_of(const Record& record, const Placed& placed) {
  Extent extent{record.a, placed.payload_length, placed.meta_length,
                0,        placed.meta_length,    placed.position};
  if (!log::is_compressed(record)) return extent;
  const auto raw = log::raw_length(record, placed.payload_length);
  if (!raw || record.a > INT64_MAX - *raw) return std::nullopt;
  const uint64_t total =
      log::round_up(placed.meta_length + uint64_t{placed.payload_length}, log::kRecordAlignment);
  const uint64_t rate = log::rate_for(total, *raw);
  if (rate > log::kHighestRate || log::share(rate, *raw) != total) return std::nullopt;
  extent.length = *raw;
  extent.lead = 0;
  extent.compressed = 1;
  extent.meta = rate;
  return extent;
}

}  // namespace

void Index::apply(const Record& record, const Placed& placed, Mode mode) {
  if (!is_in_range(record, placed)) return;
  changes_++;
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
      return remove_inode(record.id);
    case RecordType::kBlobSync:
    case RecordType::kManifest:
      return;
  }
}

void Index::expect(std::span<const Record> records) const {
  const auto for_each_name = [&](auto step) {
    for (const Record& record : records) {
      if (record.type == RecordType::kName) step(hash_of(record.b, record.name));
    }
  };
  for_each_name([this](uint64_t hash) { names_.prefetch_head(hash); });
  for_each_name([this](uint64_t hash) { names_.prefetch_chain(hash); });
}

// The value is whole again: nothing of what was lost is part of it.
void Index::forget_loss(Inode& inode, Mode mode) {
  if (!inode.lossy) return;
  inode.lossy = false;
  if (mode == Mode::kSequenceOrder) inode.damaged = false;
}

void Index::apply_inode(const Record& record, const Placed& placed, Mode mode) {
  if (record.body.size() != sizeof(Attributes)) return;
  Inode inode = find_or_make(record.id);
  if (record.sequence < inode.sequence) {
    // Something newer is known. A record that gives what nothing else has is still of use.
    if (inode.base) return;
    const uint64_t size = inode.attributes.size;
    std::memcpy(&inode.attributes, record.body.data(), sizeof(Attributes));
    inode.attributes.size = std::max(inode.attributes.size, size);
  } else {
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
  save(inode);
}

void Index::apply_copy(const Record& record, const Extent& extent) {
  auto inode = find(record.id);
  if (planted(Bug::kUpdateIndexBlindly) && inode) {
    extents_of(*inode).insert(extent, releaser());
    live_.add(extent.record.file(), extent.own_bytes() + extent.shared_bytes());
    return save(*inode);
  }
  const bool sane = extent.compressed != 0 || record.body.size() == sizeof(Position);
  if (!inode || !sane) return;
  Position old;
  std::memcpy(&old, record.body.data(), sizeof old);
  repoint(*inode, old, extent);
  save(*inode);
}

void Index::apply_extent(const Record& record, const Placed& placed, Mode mode) {
  const bool copy = (record.flags & log::kCopy) != 0;
  const auto known = extent_of(record, placed);
  if (!known) return lose(record.id);
  const Extent& extent = *known;
  if (copy && mode == Mode::kLogOrder) return apply_copy(record, extent);
  Inode inode = find_or_make(record.id);
  inode.sums |= (record.flags & log::kSums) != 0;
  if (mode == Mode::kLogOrder && record.sequence <= inode.sequence) return;
  extents_of(inode).insert(extent, releaser());
  const uint64_t taken = extent.own_bytes() + extent.shared_bytes();
  if (extent.length > 0) live_.add(placed.position.file(), taken);
  const bool whole = extent.offset == 0 && extent.end() >= inode.attributes.size;
  if (whole) forget_loss(inode, mode);
  const uint64_t overlay = whole ? 0 : inode.overlay_bytes() + taken;
  if (overlay != inode.overlay_bytes()) extra_of(inode).overlay_bytes = overlay;
  inode.attributes.size = std::max(inode.attributes.size, extent.end());
  if (record.sequence >= inode.sequence) {
    inode.attributes.touch(record.time);
    inode.sequence = record.sequence;
  }
  save(inode);
}

// A record that cannot be right: what it held is not known, and older bytes must not show instead.
void Index::lose(ObjectId id) {
  Inode inode = find_or_make(id);
  inode.damaged = true;
  inode.attributes.size = std::max<uint64_t>(inode.attributes.size, 1);
  save(inode);
}

void Index::repoint(Inode& inode, Position from, const Extent& to) {
  const uint64_t taken = extents_of(inode).repoint(from, to, releaser());
  if (taken > 0) live_.add(to.record.file(), taken);
}

void Index::relocate(const Record& record, Position from, const Placed& to) {
  changes_++;
  if (record.type == RecordType::kName) {
    const auto name = find(record.b, record.name);
    if (name && name->record == from) set_record(*name, to.position);
    return;
  }
  auto inode = find(record.id);
  if (!inode) return;
  if (record.type == RecordType::kInode && inode->base == from) {
    live_.subtract(from.file(), log::inode_record_length());
    inode->base = to.position;
    live_.add(to.position.file(), log::inode_record_length());
  } else if (record.type == RecordType::kExtent) {
    const auto whole = extent_of(record, to);
    if (whole) repoint(*inode, from, *whole);
  }
  save(*inode);
}

void Index::apply_shape(const Record& record, Mode mode) {
  Inode inode = find_or_make(record.id);
  // By sequence nothing younger is known; the inode's attributes may have been written anew under
  // this very sequence, and yet this record has bytes to drop.
  if (mode == Mode::kLogOrder && record.sequence <= inode.sequence) return;
  Attributes& attributes = inode.attributes;
  if (record.type == RecordType::kTruncate) {
    drop_extents(inode, record.a, UINT64_MAX);
    attributes.size = record.a;
    if (record.a == 0) {
      inode.damaged = false;
      inode.lossy = false;
    }
  } else if (record.type == RecordType::kZero) {
    drop_extents(inode, record.a, record.a + record.b);
  } else {
    attributes.size = std::max(attributes.size, record.a + record.b);
  }
  if (record.time != Time{}) attributes.touch(record.time);
  inode.sequence = record.sequence;
  save(inode);
}

void Index::touch_parent(const Record& record) {
  // A copy's touch is in the INODE record that the cleaner has written with it.
  if ((record.flags & log::kCopy) != 0) return;
  auto parent = find(record.b);
  if (!parent || record.sequence <= parent->sequence) return;
  parent->attributes.touch(record.time);
  parent->sequence = record.sequence;
  save(*parent);
}

void Index::apply_name(const Record& record, const Placed& placed) {
  (void)row_or_add(record.b);
  touch_parent(record);
  const uint64_t hash = hash_of(record.b, record.name);
  if (const auto known = name_at(name_row(record.b, record.name, hash))) {
    if (known->cookie > record.id) return;  // replaced since
    // A copy, or seen before.
    if (known->cookie == record.id) return set_record(*known, placed.position);
    remove_name(*known);
  }
  // A cookie is unique in its directory; one that is taken was renamed in place by a later record.
  const Extra* parent = InodeRow::extra(arena_.at(inode_row(record.b)));
  if (parent != nullptr && parent->children.find(record.id) != Arena::kNone) return;
  Name name;
  name.cookie = record.id;
  name.parent = record.b;
  name.inode = record.a;
  name.record = placed.position;
  name.name = record.name;
  add_name(name, hash);
}

void Index::apply_unname(const Record& record) {
  touch_parent(record);
  const auto parent = find(record.b);
  if (!parent || record.id == 0) return;
  const auto name = next_child(*parent, record.id - 1);
  if (name && name->cookie == record.id) remove_name(*name);
}

}  // namespace valfs::index
