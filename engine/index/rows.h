// How inodes and names lie in memory: packed, because there are millions of them.
//
//   inode   0  next in the hash chain   4  holds   8  first name   12  flags   14  length
//           16  numbers of 1 to 10 bytes, each only if it is not what the flags say it is
//   name    0  next in the hash chain   4  next link   8  record   16  length of the name
//           18  parent, inode, cookie − inode, as numbers of 1 to 10 bytes; the name
//
// A file that was created and written once takes 48 to 56 bytes, and a name 26 and its own length.
#pragma once

#include <span>
#include <unordered_map>
#include <vector>

#include "engine/index/inode.h"

namespace valfs::index {

// Owner and mode: few different ones are in use, so that a row holds a number for them.
struct Kind {
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  friend bool operator==(const Kind&, const Kind&) = default;
};

class Kinds {
 public:
  uint32_t number_of(const Kind& kind);
  const Kind& of(uint32_t number) const { return kinds_[number]; }
  void clear();

 private:
  struct Hash {
    size_t operator()(const Kind& kind) const;
  };
  std::vector<Kind> kinds_;
  std::unordered_map<Kind, uint32_t, Hash> numbers_;
  // A directory and what is made in it take turns.
  uint32_t last_ = 0;
  uint32_t before_last_ = 0;
};

struct InodeRow {
  static constexpr size_t kLongest = 256;  // bytes

  Arena::Ref next = Arena::kNone;
  uint32_t holds = 0;
  Arena::Ref names = Arena::kNone;
  uint16_t flags = 0;
  uint16_t length = 0;  // bytes, this header included

  // Bytes of the row. Its header is left for the caller to fill, but for flags and length.
  static size_t encode(const Inode& inode, Kinds& kinds, std::span<std::byte> into);
  static Inode decode(std::byte* row, const Kinds& kinds);
  static ObjectId id(const std::byte* row);
  static Extra* extra(const std::byte* row);
  // It has an INODE record and one link: nearly all have.
  static bool is_plain(const std::byte* row);
  static Arena::Ref first_name(const std::byte* row);
  static void set_first_name(std::byte* row, Arena::Ref name);
};
static_assert(sizeof(InodeRow) == 16);

struct NameRow {
  Arena::Ref next = Arena::kNone;
  Arena::Ref next_link = Arena::kNone;
  Position record;
  uint16_t name_length = 0;

  static constexpr size_t kHeader = 18;
  static constexpr size_t kLongest = kHeader + 3 * 10;  // without the name

  // Bytes before the name; its header is written too, but for the links.
  static size_t encode(const Name& name, std::span<std::byte> into);
  static Name decode(const std::byte* row, Arena::Ref ref);
  static size_t length(const std::byte* row);
  static bool is(const std::byte* row, ObjectId parent, std::string_view name);
};
static_assert(offsetof(NameRow, name_length) + 2 == NameRow::kHeader);

}  // namespace valfs::index
