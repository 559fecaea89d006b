// Takes checkpoints of a running store.
#pragma once

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
  void set_covers(log::GroupSequence group) { covers_ = group; }
  // Bytes of log written since.
  uint64_t log_bytes_behind() const;

 private:
  Status flush_blobs();
  Moment take_moment();

  Core& core_;
  blob::Blobs& blobs_;
  std::mutex mutex_;
  std::atomic<log::GroupSequence> covers_{0};
  std::atomic<uint64_t> used_at_last_{0};
};

}  // namespace valfs::checkpoint
