// What the rooms of the engine share. Private to the engine; users see store.h.
#pragma once

#include <condition_variable>
#include <memory>
#include <shared_mutex>
#include <vector>

#include "engine/base/spinning_mutex.h"
#include "engine/cache/value_cache.h"
#include "engine/index/index.h"
#include "engine/log/log_files.h"
#include "engine/log/log_writer.h"
#include "engine/log/manifest.h"
#include "engine/log/staging.h"
#include "engine/log/superblock.h"
#include "engine/options.h"
#include "engine/pending_truncations.h"

namespace valfs {

// Lock order: a stripe of value_locks → state → deferred_mutex, superblock_mutex → log's own locks.
struct Core {
  Core(storage::Storage& the_storage, const StoreOptions& the_options, const log::VolumeId& volume);

  storage::Storage& storage;
  const StoreOptions options;

  // Guards the index and the order of appends: shared to read the index, exclusive to append.
  mutable SpinningMutex state;
  index::Index index;
  log::GroupSequence newest_freed = 0;  // by the cleaner; guarded by state too

  log::LogFiles files;
  std::unique_ptr<log::Staging> staging;
  std::unique_ptr<log::LogWriter> writer;
  cache::ValueCache cache;

  mutable std::mutex superblock_mutex;
  log::Superblock superblock;

  // One for many inodes: exclusive to change a value, shared to read one that lies in bin/.
  std::shared_mutex& value_lock(log::ObjectId id) { return value_locks[id % value_locks.size()]; }
  std::array<std::shared_mutex, 251> value_locks;

  // Runs `action` once everything appended so far is durable, in run_deferred() (by upkeep).
  void when_durable(std::function<void()> action);
  void run_deferred();

  // Somebody has appended: the committer, if it sleeps, has to look at its clock.
  std::function<void()> on_append = [] {};
  std::atomic<bool> committer_asleep{false};

  // Frees room in the log when there is none for an append of that purpose; false: none to be had.
  // Set by upkeep. May be called with a value lock held, not with any other.
  std::function<bool(log::LogWriter::Purpose)> make_room = [](log::LogWriter::Purpose) {
    return false;
  };

  // Called before a change of so many bytes; may wait, so that garbage stays within its bound. With
  // no lock held. Set by upkeep.
  std::function<void(uint64_t)> pace = [](uint64_t) {};

  // Values cut to nothing that somebody is about to write anew (P5).
  PendingTruncations truncations;

  std::chrono::steady_clock::time_point now() const { return clock(); }
  std::function<std::chrono::steady_clock::time_point()> clock;

  // Bytes of blobs and checkpoints on the disk, as last counted.
  std::atomic<uint64_t> blob_bytes{0};
  std::atomic<uint64_t> checkpoint_bytes{0};
  // Bytes that the volume takes, and may still take (cap or disk, whichever is less).
  uint64_t used_bytes() const;
  uint64_t available_bytes() const;
  // Of active and sealed log files: current records, and every other byte. Without a lock, so that
  // the two may be of slightly different moments.
  uint64_t live_bytes() const { return index.live().total(); }
  uint64_t dead_bytes() const;

 private:
  struct Deferred {
    log::GroupSequence group;
    std::function<void()> action;
  };
  std::mutex deferred_mutex_;
  std::vector<Deferred> deferred_;
};

}  // namespace valfs
