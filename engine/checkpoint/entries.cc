#include "engine/checkpoint/entries.h"

#include "engine/base/planted.h"

namespace valfs::checkpoint {
namespace {

using index::Attributes;
using index::Extent;
using index::Inode;

// Lowest first those that are less rare.
enum Flag : uint32_t {
  kOtherOwner = 1 << 0,
  kOtherExtents = 1 << 1,  // not exactly one …
  kOtherSize = 1 << 2,     // … that is all of the value
  kOtherNames = 1 << 3,
  kOtherChange = 1 << 4,  // changed is not modified
  kOtherBirth = 1 << 5,   // born is not accessed
  kOtherLinks = 1 << 6,
  kDevice = 1 << 7,
  kBlob = 1 << 8,
  kNoBase = 1 << 9,
  kSums = 1 << 10,
  kDamaged = 1 << 11,
  kLossy = 1 << 12,
};

// With the meta length of an extent.
constexpr uint64_t kCompressedExtent = 1;
constexpr uint64_t kOtherLead = 2;  // it does not begin where the payload does
constexpr int kExtentFlagBits = 2;

bool same_owner(const Attributes& attributes, const EntryBefore& before) {
  return attributes.mode == before.mode && attributes.uid == before.uid &&
         attributes.gid == before.gid;
}

uint32_t flags_of(const index::Index& index, const Inode& inode, const EntryBefore& before) {
  const Attributes& a = inode.attributes;
  const auto extents = inode.extents().all();
  uint32_t flags = 0;
  const auto set = [&flags](Flag flag, bool on) {
    if (on) flags |= flag;
  };
  set(kOtherOwner, !same_owner(a, before));
  set(kOtherExtents, extents.size() != 1);
  set(kOtherSize, extents.size() != 1 || extents[0].offset != 0 || extents[0].end() != a.size);
  set(kOtherNames, index.count_names(inode) != 1);
  set(kOtherChange, a.changed() != a.modified());
  set(kOtherBirth, a.born() != a.accessed());
  set(kOtherLinks, a.links != 1);
  set(kDevice, a.device != 0);
  set(kBlob, a.blob != 0);
  set(kNoBase, !inode.base);
  set(kSums, inode.sums);
  set(kDamaged, inode.damaged && !planted(Bug::kCheckpointHidesDamage));
  set(kLossy, inode.lossy);
  return flags;
}

// What the index counts on. A page whose CRC is right was written by this program, but not
// necessarily by one without bugs, on a machine with sound memory.
bool is_sane(const Extent& extent, uint64_t least_offset) {
  const bool in_order = extent.offset >= least_offset && extent.end() > extent.offset;
  const bool inside =
      extent.compressed != 0
          ? extent.meta > 0 && extent.in_payload() + extent.length <= log::kMaxPayload
          : extent.lead >= extent.meta;
  return in_order && extent.record && inside;
}

}  // namespace

void EntryWriter::put_time(Time time, Time after) {
  pages_.difference(static_cast<uint64_t>(time.seconds), static_cast<uint64_t>(after.seconds));
  pages_.difference(time.nanoseconds, after.nanoseconds);
}

Status EntryWriter::put(const index::Index& index, const Inode& inode) {
  VALFS_ASSIGN(const bool first, pages_.begin_entry(PageKind::kInodes));
  if (first) before_ = {};
  const uint32_t flags = flags_of(index, inode, before_);
  pages_.number(flags);
  pages_.difference(inode.id, before_.id);
  pages_.difference(inode.sequence, before_.sequence);
  if ((flags & kNoBase) == 0) {
    pages_.difference(inode.base.packed, before_.base);
    pages_.difference(inode.base_sequence, inode.sequence);
    before_.base = inode.base.packed;
  }
  before_.id = inode.id;
  before_.sequence = inode.sequence;
  put_attributes(inode, flags);
  put_extents(inode, flags);
  put_names(index, inode, flags);
  return {};
}

void EntryWriter::put_attributes(const Inode& inode, uint32_t flags) {
  const Attributes& a = inode.attributes;
  if ((flags & kOtherOwner) != 0) {
    pages_.number(before_.mode = a.mode);
    pages_.number(before_.uid = a.uid);
    pages_.number(before_.gid = a.gid);
  }
  put_time(a.modified(), before_.modified);
  before_.modified = a.modified();
  if ((flags & kOtherChange) != 0) put_time(a.changed(), a.modified());
  put_time(a.accessed(), a.modified());
  if ((flags & kOtherBirth) != 0) put_time(a.born(), a.accessed());
  if ((flags & kOtherLinks) != 0) pages_.number(a.links);
  if ((flags & kDevice) != 0) pages_.number(a.device);
  if ((flags & kBlob) != 0) pages_.number(a.blob);
}

void EntryWriter::put_extents(const Inode& inode, uint32_t flags) {
  const auto extents = inode.extents().all();
  if ((flags & kOtherExtents) != 0) pages_.number(extents.size());
  uint64_t record = inode.base.packed;
  uint64_t end = 0;
  for (const Extent& extent : extents) {
    pages_.difference(extent.record.packed, record);
    const bool plain = extent.in_payload() == 0;
    pages_.number(uint64_t{extent.meta} << kExtentFlagBits | (plain ? 0 : kOtherLead) |
                  (extent.compressed != 0 ? kCompressedExtent : 0));
    if (!plain) pages_.number(extent.lead);
    if ((flags & kOtherSize) != 0) pages_.number(extent.offset - end);
    pages_.number(extent.length);
    record = extent.record.packed;
    end = extent.end();
  }
  if ((flags & kOtherSize) != 0) pages_.number(inode.attributes.size);
}

void EntryWriter::put_names(const index::Index& index, const Inode& inode, uint32_t flags) {
  if ((flags & kOtherNames) != 0) pages_.number(index.count_names(inode));
  for (auto name = index.first_name(inode); name; name = index.next_name(*name)) {
    pages_.difference(name->cookie, inode.id);
    pages_.difference(name->parent, before_.parent);
    pages_.difference(name->record.packed, inode.base.packed);
    pages_.number(name->name.size());
    pages_.put(name->name);
    before_.parent = name->parent;
  }
}

Time EntryReader::take_time(Time after) {
  const auto seconds = page_.after(static_cast<uint64_t>(after.seconds));
  return {static_cast<int64_t>(seconds), static_cast<uint32_t>(page_.after(after.nanoseconds))};
}

bool EntryReader::take(Entries& into) {
  const auto flags = static_cast<uint32_t>(page_.number());
  Inode& inode = into.inodes.emplace_back();
  inode.id = before_.id = page_.after(before_.id);
  inode.sequence = before_.sequence = page_.after(before_.sequence);
  if ((flags & kNoBase) == 0) {
    inode.base.packed = before_.base = page_.after(before_.base);
    inode.base_sequence = page_.after(inode.sequence);
  }
  inode.sums = (flags & kSums) != 0;
  inode.damaged = (flags & kDamaged) != 0;
  inode.lossy = (flags & kLossy) != 0;
  take_attributes(inode, flags);
  if (inode.id == 0 || !take_extents(inode, flags, into.extents)) return false;
  into.extent_ends.push_back(into.extents.size());
  return take_names(inode, flags, into.names);
}

void EntryReader::take_attributes(Inode& inode, uint32_t flags) {
  Attributes& a = inode.attributes;
  if ((flags & kOtherOwner) != 0) {
    before_.mode = static_cast<uint32_t>(page_.number());
    before_.uid = static_cast<uint32_t>(page_.number());
    before_.gid = static_cast<uint32_t>(page_.number());
  }
  a.mode = before_.mode;
  a.uid = before_.uid;
  a.gid = before_.gid;
  a.set_modified(before_.modified = take_time(before_.modified));
  a.set_changed((flags & kOtherChange) != 0 ? take_time(a.modified()) : a.modified());
  a.set_accessed(take_time(a.modified()));
  a.set_born((flags & kOtherBirth) != 0 ? take_time(a.accessed()) : a.accessed());
  a.links = (flags & kOtherLinks) != 0 ? static_cast<uint32_t>(page_.number()) : 1;
  if ((flags & kDevice) != 0) a.device = page_.number();
  if ((flags & kBlob) != 0) a.blob = page_.number();
}

// Extents in one record agree about it: what they keep alive is counted by that.
bool EntryReader::agrees(const Extent& extent) {
  const uint64_t about = uint64_t{extent.meta} << 1 | extent.compressed;
  return records_.try_emplace(extent.record.packed, about).first->second == about;
}

bool EntryReader::take_extents(Inode& inode, uint32_t flags, std::vector<Extent>& into) {
  const uint64_t count = (flags & kOtherExtents) != 0 ? page_.number() : 1;
  uint64_t record = inode.base.packed;
  uint64_t end = 0;
  records_.clear();
  for (uint64_t i = 0; i < count; i++) {
    Extent extent;
    extent.record.packed = record = page_.after(record);
    const uint64_t meta = page_.number();
    extent.meta = meta >> kExtentFlagBits;
    extent.compressed = (meta & kCompressedExtent) != 0 ? 1 : 0;
    const uint64_t first = extent.compressed != 0 ? 0 : extent.meta;
    extent.lead = (meta & kOtherLead) != 0 ? page_.number() : first;
    extent.offset = end + ((flags & kOtherSize) != 0 ? page_.number() : 0);
    extent.length = page_.number();
    if (page_.failed() || !is_sane(extent, end)) return false;
    if (count > 1 && !agrees(extent)) return false;
    end = extent.end();
    into.push_back(extent);
  }
  inode.attributes.size = (flags & kOtherSize) != 0 ? page_.number() : end;
  return end <= inode.attributes.size && inode.attributes.size <= INT64_MAX;
}

bool EntryReader::take_names(const Inode& inode, uint32_t flags, std::vector<index::Name>& into) {
  const uint64_t count = (flags & kOtherNames) != 0 ? page_.number() : 1;
  for (uint64_t i = 0; i < count && !page_.failed(); i++) {
    index::Name name;
    name.cookie = page_.after(inode.id);
    name.parent = before_.parent = page_.after(before_.parent);
    name.inode = inode.id;
    name.record.packed = page_.after(inode.base.packed);
    const uint64_t length = page_.number();
    name.name = page_.take_text(length);
    const bool sane = name.cookie != 0 && name.parent != 0 && length <= log::kMaxName;
    if (page_.failed() || !sane) return false;
    into.push_back(name);
  }
  return !page_.failed();
}

}  // namespace valfs::checkpoint
