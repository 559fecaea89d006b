// The cleaner: copies what is live out of log files that hold much that is not, and frees them.
//
//   choose ─► copy (index repointed with each copy) ─► copies durable ─► RETIRED durable ─► unlink
//
// Killed anywhere, it leaves duplicates that change nothing; the next mount's log is whole. It
// holds the store's lock for one small batch at a time. What may be dropped: engine/README.md,
// invariant 3.
#pragma once

#include <atomic>
#include <map>
#include <set>

#include "engine/blob/blobs.h"
#include "engine/log/group.h"
#include "engine/transaction.h"

namespace valfs::cleaner {

struct Outcome {
  uint64_t copied = 0;     // bytes of records
  uint64_t reclaimed = 0;  // bytes that the freed file took on the disk
  bool freed = false;      // false: something in it is damaged, it stays
};

class Cleaner {
 public:
  Cleaner(Core& core, const blob::Blobs& blobs) : core_(core), blobs_(blobs) {}

  // The sealed file that is best cleaned next; nothing if none is worth it. `greedy`: the one that
  // gives most, at any cost (the disk is nearly full); else cost-benefit (LFS, SOSP 1991):
  // (1 - u) · age / (1 + u), u = live share.
  log::LogFileRef choose(bool greedy) const;
  // All files of which more than a few bytes can be freed, oldest first: tombstones go last.
  std::vector<log::LogFileRef> worth_cleaning() const;

  // Bytes that cleaning it would give.
  uint64_t dead_in(const log::LogFile& file) const;

  // Cleans one sealed file. One caller at a time.
  Result<Outcome> clean(const log::LogFileRef& file);

  uint64_t files_freed() const { return files_freed_; }
  uint64_t bytes_copied() const { return bytes_copied_; }

 private:
  class Batch;
  struct Other {
    log::FileId id;
    log::ObjectId highest_object;
  };

  Status copy_group(const log::LogFileRef& file, uint64_t offset, uint64_t end, uint64_t& length);
  Status copy_records(const log::LogFile& file, uint64_t group_offset,
                      std::span<const log::GroupContents::Entry> entries);
  bool copy(Batch& batch, const log::LogFile& file, log::Position position,
            const log::GroupContents::Entry& entry) const;
  bool copy_extent(Batch& batch, const log::LogFile& file, log::Position position,
                   const log::GroupContents::Entry& entry) const;
  bool copy_tombstone(Batch& batch, const log::LogFile& file, const log::Record& record) const;
  bool renew(Batch& batch, log::ObjectId inode) const;
  bool renew_if_older(Batch& batch, const log::LogFile& file, log::ObjectId inode) const;
  log::FileId blocker_of(const log::Record& record, log::FileId origin) const;
  Status retire(const log::LogFileRef& file);

  uint64_t live_in(const log::LogFile& file) const;
  uint64_t pinned_in(const log::LogFile& file) const;
  log::LogFileRef worst_blocker() const;

  Core& core_;
  const blob::Blobs& blobs_;
  // Of the file being cleaned.
  std::vector<Other> others_;  // log files besides it, by id
  bool damaged_ = false;       // something in it is lost: it has to stay as evidence

  mutable std::mutex mutex_;      // guards what follows
  std::set<log::FileId> unfree_;  // cannot be freed: damaged records in them count
  // Tombstones that were copied into a file and cannot be dropped while a certain other file is
  // there: bytes, by file and blocking file.
  std::map<log::FileId, std::map<log::FileId, uint64_t>> pinned_;
  std::atomic<uint64_t> files_freed_{0};
  std::atomic<uint64_t> bytes_copied_{0};
};

}  // namespace valfs::cleaner
