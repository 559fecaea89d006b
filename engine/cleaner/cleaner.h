// The cleaner: copies what is live out of log files that hold much that is not, and frees them.
//
//   choose ─► copy a slice (index repointed with each copy) ─► copies and manifest durable
//          ─► the slice is punched out of the file, or the file, once nothing is left, unlinked
//
// A slice is a run of groups at the beginning of what is left of a file, so at any moment only so
// much is on the disk twice. Killed anywhere, it leaves duplicates that change nothing; the next
// mount's log is whole. It holds the store's lock for one small batch at a time. What may be
// dropped: engine/README.md, invariant 3.
#pragma once

#include <atomic>
#include <map>
#include <set>

#include "engine/blob/blobs.h"
#include "engine/checkpoint/checkpointer.h"
#include "engine/cleaner/packer.h"
#include "engine/log/group.h"
#include "engine/transaction.h"

namespace valfs::cleaner {

struct Outcome {
  uint64_t copied = 0;   // bytes of records
  uint64_t freed = 0;    // bytes of the log, copied ones included
  bool removed = false;  // the file is gone
  bool stuck = false;    // something in it is damaged: the rest of it stays
};

class Cleaner {
 public:
  Cleaner(Core& core, const blob::Blobs& blobs, const checkpoint::Checkpointer& checkpointer)
      : core_(core), blobs_(blobs), checkpointer_(checkpointer) {}

  // The file that is best cleaned next, as far as the newest checkpoint covers it; nothing if none
  // is worth it. One that was begun is finished first: else many would be left with a little in
  // them. Cost-benefit (LFS, SOSP 1991): (1 - u) · age / (1 + u), u = live share.
  log::LogFileRef choose() const;
  // All files of which more than a few bytes can be freed, oldest first: tombstones go last.
  std::vector<log::LogFileRef> worth_cleaning() const;

  // Bytes that cleaning it would give.
  uint64_t dead_in(const log::LogFile& file) const;

  // Cleans about `bytes` of a file, from its beginning on; not beyond what the newest checkpoint
  // covers, if `covered`: what it does not cover and is freed makes the next mount read the whole
  // log. One caller at a time.
  Result<Outcome> clean_slice(const log::LogFileRef& file, uint64_t bytes, bool covered);

  uint64_t files_freed() const { return files_freed_; }
  uint64_t bytes_copied() const { return bytes_copied_; }
  uint64_t bytes_freed() const { return bytes_freed_; }
  // What it has compressed: records, what they take, and what they hold.
  uint64_t compressed() const { return compressed_; }
  uint64_t compressed_bytes() const { return compressed_bytes_; }
  uint64_t compressed_raw_bytes() const { return compressed_raw_bytes_; }

 private:
  class Batch;
  struct Other {
    log::FileId id;
    log::GroupSequence first_group;
    log::ObjectId highest_object;
  };
  // Of the slice being cleaned.
  struct Source {
    log::LogFileRef file;
    log::Stream target = log::Stream::kWarm;
    log::GroupSequence group = 0;  // being copied
    std::vector<Other> others;     // log files besides it, by id
    bool stuck = false;            // something in the group cannot be copied
  };

  uint64_t end_for(const log::LogFile& file, bool covered) const;
  void await_no_gap() const;
  void begin_source(const log::LogFileRef& file);
  Status copy_group(uint64_t offset, uint64_t end, uint64_t& length);
  Status copy_records(uint64_t group_offset, std::span<const log::GroupContents::Entry> entries);
  Status prepare(Packer& packer, uint64_t group_offset,
                 std::span<const log::GroupContents::Entry> entries);
  Status allow_compressed();
  bool copy(Batch& batch, log::Position position, const log::GroupContents::Entry& entry);
  static bool copy_as_it_is(Batch& batch, const log::Record& record);
  bool copy_extent(Batch& batch, log::Position position, const log::GroupContents::Entry& entry);
  bool copy_run(Batch& batch, log::Position position, const log::Record& record,
                const index::Extent& extent);
  bool copy_tombstone(Batch& batch, const log::Record& record) const;
  bool renew(Batch& batch, log::ObjectId inode) const;
  bool renew_if_older(Batch& batch, log::RecordSequence than, log::ObjectId inode) const;
  log::FileId blocker_of(const log::Record& record, log::GroupSequence origin) const;
  Status give_back(uint64_t begin, log::GroupSequence last, bool whole);
  Status remove(const log::LogFileRef& file);

  uint64_t live_in(const log::LogFile& file) const;
  uint64_t pinned_in(const log::LogFile& file) const;
  log::LogFileRef worst_blocker() const;

  Core& core_;
  const blob::Blobs& blobs_;
  const checkpoint::Checkpointer& checkpointer_;
  Source source_;
  std::atomic<log::FileId> begun_{0};  // a file of which the beginning is gone: it comes first

  mutable std::mutex mutex_;      // guards what follows
  std::set<log::FileId> unfree_;  // cannot be freed: damaged records in them count
  // Tombstones that were copied into a file and cannot be dropped while a certain other file is
  // there: bytes, by file and blocking file.
  std::map<log::FileId, std::map<log::FileId, uint64_t>> pinned_;
  std::atomic<uint64_t> files_freed_{0};
  std::atomic<uint64_t> bytes_copied_{0};
  std::atomic<uint64_t> bytes_freed_{0};
  std::atomic<uint64_t> compressed_{0};
  std::atomic<uint64_t> compressed_bytes_{0};
  std::atomic<uint64_t> compressed_raw_bytes_{0};
};

}  // namespace valfs::cleaner
