// Takes checkpoints of a running store.
#pragma once

#include <map>

#include "engine/blob/blobs.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/core.h"

namespace valfs::checkpoint {

class Checkpointer {
 public:
  Checkpointer(Core& core, blob::Blobs& blobs) : core_(core), blobs_(blobs) {}

  // Flushes, writes a checkpoint, names it in the superblock, gives back what sealed log files do
  // not use. Writers go on meanwhile. One at a time; others wait.
  Status run();
  // The last group that the newest durable checkpoint covers.
  log::GroupSequence covers() const { return covers_.load(); }
  // What the checkpoint that the mount began with covers.
  void start(log::GroupSequence covers, uint64_t bytes_behind);
  // Where the covered groups of a log file end.
  uint64_t covered_end(log::FileId file) const;
  // Bytes of log written since.
  uint64_t log_bytes_behind() const;
  // Bytes of the newest one that this mount has written; 0 before.
  uint64_t last_bytes() const { return bytes_of_last_.load(); }

 private:
  Status flush_blobs();
  Moment take_moment();

  Core& core_;
  blob::Blobs& blobs_;
  std::mutex mutex_;
  mutable std::mutex ends_mutex_;
  std::map<log::FileId, uint64_t> ends_;  // of the files that the newest checkpoint knows
  std::atomic<log::GroupSequence> covers_{0};
  std::atomic<uint64_t> written_at_last_{0};
  std::atomic<uint64_t> bytes_of_last_{0};
  std::atomic<uint64_t> replayed_{0};  // bytes of log behind the checkpoint of the mount
};

}  // namespace valfs::checkpoint
