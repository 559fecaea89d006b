// The entries of a checkpoint's pages of inodes: an inode, its extents and its names, each told by
// how it differs from the one before it in the page. Neighbours in time are neighbours in the
// index, so that a file with a name of 12 bytes takes about 45 bytes instead of 210.
//
//   flags  what is not as usual; nearly all entries have none
//   id     sequence                                    after those of the entry before
//   base · base_sequence                               after base before, after sequence
//   mode · uid · gid                                   if not those of the entry before
//   modified · changed · accessed · born               seconds and nanoseconds, each after another
//   links · device · blob                              if not 1, 0, 0
//   extents: count, if not 1; each                     record after base or the one before
//   size                                               if not the end of the only extent
//   names: count, if not 1; each                       cookie after id, parent after the parent
//                                                      before, record after base, length, text
//
// All are numbers of 7 bits a byte (base/varint.h), "after" as a signed difference.
#pragma once

#include <unordered_map>
#include <vector>

#include "engine/checkpoint/pages.h"
#include "engine/index/index.h"

namespace valfs::checkpoint {

// What the next entry is told by. Begins anew with every page.
struct EntryBefore {
  log::ObjectId id = 0;
  log::RecordSequence sequence = 0;
  uint64_t base = 0;
  Time modified;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  log::ObjectId parent = 0;
};

class EntryWriter {
 public:
  explicit EntryWriter(PageWriter& pages) : pages_(pages) {}
  Status put(const index::Index& index, const index::Inode& inode);

 private:
  void put_attributes(const index::Inode& inode, uint32_t flags);
  void put_extents(const index::Inode& inode, uint32_t flags);
  void put_names(const index::Index& index, const index::Inode& inode, uint32_t flags);
  void put_time(Time time, Time after);

  PageWriter& pages_;
  EntryBefore before_;
};

// What entries say, before it goes to the index.
struct Entries {
  std::vector<index::Inode> inodes;
  std::vector<index::Extent> extents;  // of all of them, in order
  std::vector<size_t> extent_ends;     // of each inode
  std::vector<index::Name> names;      // views into the page

  void clear() {
    inodes.clear();
    extents.clear();
    extent_ends.clear();
    names.clear();
  }
};

class EntryReader {
 public:
  explicit EntryReader(PageReader page) : page_(page) {}
  bool at_end() const { return page_.at_end(); }
  // False if the entry makes no sense.
  bool take(Entries& into);

 private:
  void take_attributes(index::Inode& inode, uint32_t flags);
  bool take_extents(index::Inode& inode, uint32_t flags, std::vector<index::Extent>& into);
  bool take_names(const index::Inode& inode, uint32_t flags, std::vector<index::Name>& into);
  Time take_time(Time after);
  bool agrees(const index::Extent& extent);

  PageReader page_;
  EntryBefore before_;
  std::unordered_map<uint64_t, uint64_t> records_;  // of the inode at hand
};

}  // namespace valfs::checkpoint
