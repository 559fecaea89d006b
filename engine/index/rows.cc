#include "engine/index/rows.h"

#include <cstring>

#include "engine/base/check.h"
#include "engine/base/varint.h"
#include "engine/cache/random.h"

namespace valfs::index {
namespace {

// Of an inode's row.
enum Flag : uint16_t {
  kSums = 1 << 0,
  kDamaged = 1 << 1,
  kLossy = 1 << 2,
  kBase = 1 << 3,         // it has an INODE record
  kExtra = 1 << 4,        // a pointer to the rest ends the row
  kExtent = 1 << 5,       // its only extent is in the row …
  kWholeExtent = 1 << 6,  // … begins at 0 and ends where the value does …
  kPlainExtent = 1 << 7,  // … and begins where the record's payload does
  kOneLink = 1 << 8,
  kNoDevice = 1 << 9,
  kNoBlob = 1 << 10,
  // Times are those of the last change of content.
  kSameChange = 1 << 11,
  kSameAccess = 1 << 12,
  kSameBirth = 1 << 13,
  kCompressedExtent = 1 << 14,
};

class Packer {
 public:
  explicit Packer(std::byte* at) : at_(at) {}
  void number(uint64_t value) { at_ = put_varint(at_, value); }
  void signed_number(int64_t value) { number(zigzag(value)); }
  void difference(uint64_t value, uint64_t from) { number(valfs::difference(value, from)); }
  void time(Time time) {
    signed_number(time.seconds);
    number(time.nanoseconds);
  }
  // Two halves, so that both differences may be small.
  void time_after(Time time, Time from) {
    difference(static_cast<uint64_t>(time.seconds), static_cast<uint64_t>(from.seconds));
    signed_number(int64_t{time.nanoseconds} - int64_t{from.nanoseconds});
  }
  template <class T>
  void raw(const T& value) {
    std::memcpy(at_, &value, sizeof value);
    at_ += sizeof value;
  }
  std::byte* at() const { return at_; }

 private:
  std::byte* at_;
};

class Unpacker {
 public:
  explicit Unpacker(const std::byte* at) : at_(at) {}
  uint64_t number() {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint64_t>(*at_++);
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }
  int64_t signed_number() { return unzigzag(number()); }
  uint64_t after(uint64_t from) { return valfs::after(from, number()); }
  Time time() {
    const int64_t seconds = signed_number();
    return {seconds, static_cast<uint32_t>(number())};
  }
  Time time_after(Time from) {
    const auto seconds = static_cast<int64_t>(after(static_cast<uint64_t>(from.seconds)));
    return {seconds, static_cast<uint32_t>(int64_t{from.nanoseconds} + signed_number())};
  }
  template <class T>
  T raw() {
    T value;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  const std::byte* at() const { return at_; }

 private:
  const std::byte* at_;
};

void pack_extent(Packer& packer, const Extent& extent, Position base, uint16_t& flags) {
  flags |= kExtent;
  packer.difference(extent.record.packed, base.packed);
  packer.number(extent.meta);
  if ((flags & kWholeExtent) == 0) packer.number(extent.offset);
  packer.number(extent.length);
  if (extent.compressed != 0) flags |= kCompressedExtent;
  if (extent.in_payload() == 0) {
    flags |= kPlainExtent;
  } else {
    packer.number(extent.lead);
  }
}

Extent unpack_extent(Unpacker& unpacker, Position base, uint16_t flags) {
  Extent extent;
  extent.record.packed = unpacker.after(base.packed);
  extent.meta = unpacker.number();
  if ((flags & kWholeExtent) == 0) extent.offset = unpacker.number();
  extent.length = unpacker.number();
  extent.compressed = (flags & kCompressedExtent) != 0 ? 1 : 0;
  const uint64_t first = extent.compressed != 0 ? 0 : extent.meta;
  extent.lead = (flags & kPlainExtent) != 0 ? first : unpacker.number();
  return extent;
}

void pack_times(Packer& packer, const Attributes& attributes, uint16_t& flags) {
  const Time modified = attributes.modified();
  packer.time(modified);
  const auto other = [&](Time time, Flag same) {
    if (time == modified) {
      flags |= same;
    } else {
      packer.time_after(time, modified);
    }
  };
  other(attributes.changed(), kSameChange);
  other(attributes.accessed(), kSameAccess);
  other(attributes.born(), kSameBirth);
}

void unpack_times(Unpacker& unpacker, Attributes& attributes, uint16_t flags) {
  const Time modified = unpacker.time();
  const auto other = [&](Flag same) {
    return (flags & same) != 0 ? modified : unpacker.time_after(modified);
  };
  attributes.set_modified(modified);
  attributes.set_changed(other(kSameChange));
  attributes.set_accessed(other(kSameAccess));
  attributes.set_born(other(kSameBirth));
}

}  // namespace

size_t Kinds::Hash::operator()(const Kind& kind) const {
  return cache::mix64(cache::mix64(uint64_t{kind.uid} << 32 | kind.gid) ^ kind.mode);
}

uint32_t Kinds::number_of(const Kind& kind) {
  if (last_ < kinds_.size() && kinds_[last_] == kind) return last_;
  std::swap(last_, before_last_);
  if (last_ < kinds_.size() && kinds_[last_] == kind) return last_;
  const auto [at, fresh] = numbers_.try_emplace(kind, static_cast<uint32_t>(kinds_.size()));
  if (fresh) kinds_.push_back(kind);
  last_ = at->second;
  return last_;
}

void Kinds::clear() {
  kinds_.clear();
  numbers_.clear();
}

size_t InodeRow::encode(const Inode& inode, Kinds& kinds, std::span<std::byte> into) {
  const Attributes& attributes = inode.attributes;
  uint16_t flags = 0;
  if (inode.sums) flags |= kSums;
  if (inode.damaged) flags |= kDamaged;
  if (inode.lossy) flags |= kLossy;
  Packer packer(into.data() + sizeof(InodeRow));
  packer.number(inode.id);
  packer.number(inode.sequence);
  if (inode.base) {
    flags |= kBase;
    packer.number(inode.base.file());
    packer.number(inode.base.offset() / log::kRecordAlignment);
    packer.difference(inode.base_sequence, inode.sequence);
  }
  packer.number(kinds.number_of({attributes.mode, attributes.uid, attributes.gid}));
  pack_times(packer, attributes, flags);
  if (attributes.links == 1) {
    flags |= kOneLink;
  } else {
    packer.number(attributes.links);
  }
  if (attributes.device == 0) {
    flags |= kNoDevice;
  } else {
    packer.number(attributes.device);
  }
  if (attributes.blob == 0) {
    flags |= kNoBlob;
  } else {
    packer.number(attributes.blob);
  }
  const Extent* only = nullptr;
  if (inode.extra_ == nullptr && !inode.own_.empty()) only = &inode.own_.all().front();
  if (only != nullptr && only->offset == 0 && only->end() == attributes.size) {
    flags |= kWholeExtent;
  } else {
    packer.number(attributes.size);
  }
  if (only != nullptr) pack_extent(packer, *only, inode.base, flags);
  if (inode.extra_ != nullptr) {
    flags |= kExtra;
    packer.raw(inode.extra_);
  }
  const auto length = static_cast<size_t>(packer.at() - into.data());
  VALFS_CHECK(length <= kLongest);
  InodeRow header;
  header.flags = flags;
  header.length = static_cast<uint16_t>(length);
  std::memcpy(into.data(), &header, sizeof header);
  return length;
}

Inode InodeRow::decode(std::byte* row, const Kinds& kinds) {
  // Field by field: readers may change `holds` meanwhile.
  uint16_t flags;
  std::memcpy(&flags, row + offsetof(InodeRow, flags), sizeof flags);
  Inode inode;
  Attributes& attributes = inode.attributes;
  inode.holds_ = reinterpret_cast<uint32_t*>(row + offsetof(InodeRow, holds));
  std::memcpy(&inode.names_, row + offsetof(InodeRow, names), sizeof inode.names_);
  inode.sums = (flags & kSums) != 0;
  inode.damaged = (flags & kDamaged) != 0;
  inode.lossy = (flags & kLossy) != 0;
  Unpacker unpacker(row + sizeof(InodeRow));
  inode.id = unpacker.number();
  inode.sequence = unpacker.number();
  if ((flags & kBase) != 0) {
    const auto file = static_cast<log::FileId>(unpacker.number());
    inode.base = Position::at(file, unpacker.number() * log::kRecordAlignment);
    inode.base_sequence = unpacker.after(inode.sequence);
  }
  const Kind& kind = kinds.of(static_cast<uint32_t>(unpacker.number()));
  attributes.mode = kind.mode;
  attributes.uid = kind.uid;
  attributes.gid = kind.gid;
  unpack_times(unpacker, attributes, flags);
  attributes.links = (flags & kOneLink) != 0 ? 1 : static_cast<uint32_t>(unpacker.number());
  if ((flags & kNoDevice) == 0) attributes.device = unpacker.number();
  if ((flags & kNoBlob) == 0) attributes.blob = unpacker.number();
  if ((flags & kWholeExtent) == 0) attributes.size = unpacker.number();
  if ((flags & kExtent) != 0) {
    const Extent extent = unpack_extent(unpacker, inode.base, flags);
    inode.own_ = ExtentMap(extent);
    if ((flags & kWholeExtent) != 0) attributes.size = extent.length;
  }
  if ((flags & kExtra) != 0) inode.extra_ = unpacker.raw<Extra*>();
  return inode;
}

ObjectId InodeRow::id(const std::byte* row) {
  return Unpacker(row + sizeof(InodeRow)).number();
}

Extra* InodeRow::extra(const std::byte* row) {
  InodeRow header;
  std::memcpy(&header.flags, row + offsetof(InodeRow, flags), sizeof header.flags);
  std::memcpy(&header.length, row + offsetof(InodeRow, length), sizeof header.length);
  Extra* extra = nullptr;
  if ((header.flags & kExtra) == 0) return extra;
  std::memcpy(&extra, row + header.length - sizeof extra, sizeof extra);
  return extra;
}

bool InodeRow::is_plain(const std::byte* row) {
  uint16_t flags;
  std::memcpy(&flags, row + offsetof(InodeRow, flags), sizeof flags);
  return (flags & kBase) != 0 && (flags & kOneLink) != 0;
}

Arena::Ref InodeRow::first_name(const std::byte* row) {
  Arena::Ref name;
  std::memcpy(&name, row + offsetof(InodeRow, names), sizeof name);
  return name;
}

void InodeRow::set_first_name(std::byte* row, Arena::Ref name) {
  std::memcpy(row + offsetof(InodeRow, names), &name, sizeof name);
}

size_t NameRow::encode(const Name& name, std::span<std::byte> into) {
  Packer packer(into.data());
  packer.raw(NameRow{}.next);
  packer.raw(NameRow{}.next_link);
  packer.raw(name.record);
  packer.raw(static_cast<uint16_t>(name.name.size()));
  packer.number(name.parent);
  packer.number(name.inode);
  packer.difference(name.cookie, name.inode);
  return static_cast<size_t>(packer.at() - into.data());
}

Name NameRow::decode(const std::byte* row, Arena::Ref ref) {
  Unpacker unpacker(row);
  Name name;
  name.row = ref;
  (void)unpacker.raw<Arena::Ref>();  // next
  name.next_link = unpacker.raw<Arena::Ref>();
  name.record = unpacker.raw<Position>();
  const auto length = unpacker.raw<uint16_t>();
  name.parent = unpacker.number();
  name.inode = unpacker.number();
  name.cookie = unpacker.after(name.inode);
  name.name = {reinterpret_cast<const char*>(unpacker.at()), length};
  return name;
}

size_t NameRow::length(const std::byte* row) {
  const Name name = decode(row, Arena::kNone);
  return static_cast<size_t>(reinterpret_cast<const std::byte*>(name.name.data()) - row) +
         name.name.size();
}

bool NameRow::is(const std::byte* row, ObjectId parent, std::string_view name) {
  uint16_t length;
  std::memcpy(&length, row + offsetof(NameRow, name_length), sizeof length);
  if (length != name.size()) return false;
  Unpacker unpacker(row + kHeader);
  if (unpacker.number() != parent) return false;
  (void)unpacker.number();  // inode
  (void)unpacker.number();  // cookie
  return std::memcmp(unpacker.at(), name.data(), length) == 0;
}

}  // namespace valfs::index
