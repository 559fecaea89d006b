// The store: values under inode ids, names that lead to them, one atomic history.
//
// Opening a data directory gives the one Store that owns it. All methods may be called from any
// thread. Errors are errnos with a sentence (engine/base/status.h); after a failed write of the log
// every change and every sync answers that error until the store is closed (P8).
//
// Durability: what has returned survives kill -9 of the process; what was appended before a
// successful sync() survives power loss, as does, without any sync, what is older than
// StoreOptions::commit. After a crash the state is that of a prefix of the history.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/index/attributes.h"
#include "engine/index/index.h"
#include "engine/inspect/scrub.h"
#include "engine/options.h"
#include "engine/transaction.h"

namespace valfs {

// Numbers about the volume, all of one moment.
struct StoreStats {
  std::string volume;  // id, 32 hex digits
  uint32_t epoch = 0;  // count of mounts
  std::string io;      // how storage does I/O
  uint64_t inodes = 0;
  uint64_t names = 0;
  uint64_t log_files = 0;
  uint64_t live_bytes = 0;   // current records with their headers
  uint64_t dead_bytes = 0;   // every other byte of active and sealed log files
  uint64_t spare_bytes = 0;  // prepared log files
  uint64_t log_bytes = 0;    // what log files take on the disk, spares included
  uint64_t blob_bytes = 0;
  uint64_t checkpoint_bytes = 0;
  uint64_t capacity_bytes = 0;  // the cap, or what the volume takes and could still take
  uint64_t available_bytes = 0;
  uint64_t groups_sent = 0;
  uint64_t appended_group = 0;
  uint64_t durable_group = 0;
  double undurable_ms = 0;         // age of the oldest change that is not durable
  double undurable_blob_ms = 0;    // the same for bytes of large values
  uint64_t checkpoint_covers = 0;  // groups that the next mount need not read
  cache::CacheStats cache;
  uint64_t cleaned_files = 0;  // freed by the cleaner since the mount
  uint64_t cleaned_bytes = 0;  // of log given back by the cleaner since the mount
  uint64_t copied_bytes = 0;   // by the cleaner since the mount
  // Compressed by the cleaner since the mount: records, what they take, and what they hold.
  uint64_t compressed_records = 0;
  uint64_t compressed_bytes = 0;
  uint64_t compressed_raw_bytes = 0;
  uint64_t debt_bytes = 0;   // dead bytes beyond what the cleaner leaves alone
  uint64_t relocations = 0;  // groups that could not be written went to a fresh log file
  std::string failure;       // why the log takes no more changes; empty: it does
  // What recovery did at this mount.
  bool used_checkpoint = false;
  bool used_older_checkpoint = false;  // the newest was damaged
  uint64_t footers_used = 0;           // log files that were read by their footers
  uint64_t replayed_groups = 0;
  uint64_t replayed_records = 0;
  uint64_t drained_groups = 0;
  uint64_t dropped_groups = 0;
  uint64_t damaged_groups = 0;
  uint64_t damaged_values = 0;
};

// What garbage collection has done so far.
struct GcProgress {
  uint64_t files_total = 0;  // to be cleaned
  uint64_t files_done = 0;
  uint64_t bytes_copied = 0;
  uint64_t bytes_reclaimed = 0;  // on the disk
  uint64_t files_freed = 0;
  bool running = false;
};

class Store {
 public:
  // Takes the data directory that `storage` stands for. EBUSY: another process has it (the text
  // names it). ENOENT: no volume there, and options.create is off. ENOTEMPTY: the directory holds
  // something, but no volume. EINVAL: damaged or foreign superblock. ENODATA: a log file is
  // missing.
  static Result<std::unique_ptr<Store>> open(std::unique_ptr<storage::Storage> storage,
                                             const StoreOptions& options);
  // As if the process had been killed: nothing is committed. close() first is the polite way.
  ~Store();
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // Makes everything durable, writes a checkpoint, notes a clean end. The store takes no more
  // changes. What could not be made durable is reported.
  Status close();

  // --- reading ---

  // Calls `use` with the index locked for reading; must be quick and must not call the store.
  void read_index(const std::function<void(const index::Index&)>& use) const;
  // Bytes of the value from `offset` on, as many as there are up to into.size(). EIO: damaged.
  Result<size_t> read(log::ObjectId inode, uint64_t offset, std::span<std::byte> into);
  // The same out of memory, ours or the kernel's. Nothing is read, and nothing returned, if it
  // would have to wait for the disk.
  Result<std::optional<size_t>> read_at_once(log::ObjectId inode, uint64_t offset,
                                             std::span<std::byte> into);
  // The same for the value that `find` chooses, in one look: it is called as by read_index(), more
  // than once if the cleaner interferes, and what it finds need not be held. Nothing is read, and
  // nothing returned, if the value lies in bin/ or more than 4 MiB are asked for: hold it and
  // read().
  using Find = std::function<Result<index::Found<index::Inode>>(const index::Index&)>;
  Result<std::optional<size_t>> read_in_log(const Find& find, uint64_t offset,
                                            std::span<std::byte> into);
  // Names made from now on have this cookie or a higher one.
  log::ObjectId next_object() const;
  const StoreOptions& options() const;
  // Bytes that the value takes on the disk.
  uint64_t stored_bytes(log::ObjectId inode);

  // --- changing ---

  // A batch of changes to names and attributes; see transaction.h. ENOSPC unless `purpose` may use
  // the reserve (whatever frees space may).
  Result<Transaction> begin(const Transaction::Size& size,
                            log::LogWriter::Purpose purpose = log::LogWriter::Purpose::kOrdinary);
  // Writes into a value; it grows as needed. All or nothing.
  Status write(log::ObjectId inode, uint64_t offset, std::span<const std::byte> bytes, Time now);
  // Sets the size of a value.
  Status truncate(log::ObjectId inode, uint64_t size, Time now);
  // Makes a hole.
  Status punch(log::ObjectId inode, uint64_t offset, uint64_t length, Time now);

  // Whether a change would perhaps have to wait now: for a group to be written, for a log file to
  // be made, for the cleaner (unless it deletes), or, if it is to the bytes of `inode`, for what it
  // takes to bring a value to bin/ or to change it there. For who must not wait; it may have
  // changed when the answer is there. `bytes`: at least as many as it brings.
  enum class Change { kDelete, kNames, kSize, kContent };
  bool may_wait(Change change, log::ObjectId inode, uint64_t bytes) const;
  // Whether the value lies in bin/. false: there is none.
  bool is_large(log::ObjectId inode) const;

  // Holds keep an inode without names alive (the kernel's lookups); the last release removes it.
  // hold() may be called inside read_index(). They do not outlive the store. Released together,
  // many inodes cost little more than one.
  static void hold(const index::Inode& inode);
  struct Held {
    log::ObjectId inode = 0;
    uint64_t count = 0;
  };
  void release(std::span<const Held> holds);
  void release(log::ObjectId inode, uint64_t count) { release(std::array{Held{inode, count}}); }
  // Call after a transaction that took the last name of an inode whose value was in bin/.
  void blob_removed(log::ObjectId blob, log::ObjectId inode);

  // --- durability and upkeep ---

  // Calls `done` once everything that returned before is durable: log, and the bytes of `inode` if
  // they lie in bin/ (0: of every inode). `done` may run on another thread, or before this returns.
  void sync(log::ObjectId inode, std::function<void(const Status&)> done);
  Status sync(log::ObjectId inode = 0);
  // Returns once everybody who has called sync() with `done` has been called back, whatever came of
  // it. Nobody may call sync() meanwhile.
  void finish_syncs();
  // Makes the bytes of a value in bin/ durable, not the log. Others: nothing to do.
  Status flush(log::ObjectId inode);
  // Why the log takes no more changes, if so (P8).
  Status failure() const;

  // Cleans until little is dead. Slow; the progress may be watched from other threads. Waits for
  // another that is running.
  Result<GcProgress> gc();
  GcProgress gc_progress() const;
  // Reads everything that is live and checks it, `rate` bytes a second (0: as fast as it goes).
  // Slow; others go on meanwhile, and may watch. EBUSY: another is running. ECANCELED: stopped.
  // Damage is not an error of the scrub: it is in what it returns.
  Result<inspect::ScrubProgress> scrub(uint64_t rate);
  inspect::ScrubProgress scrub_progress() const;
  // Ends it soon. `for_good`: no other may begin.
  void stop_scrub(bool for_good = false);
  Status checkpoint();
  void drop_caches();
  StoreStats stats() const;
  std::vector<std::string> recovery_warnings() const;

  // One round of upkeep (commit if due, spares, checkpoint, cleaning), for stores without threads.
  void tick();
  // One step of cleaning: at most one log file. True if it gave something.
  Result<bool> clean_step();

 private:
  struct Rooms;
  explicit Store(std::unique_ptr<Rooms> rooms);
  void remove_unheld(std::span<const log::ObjectId> inodes);
  Status fold_if_scattered(log::ObjectId inode);
  uint64_t bytes_in_log(log::ObjectId inode) const;

  std::unique_ptr<Rooms> rooms_;
};

}  // namespace valfs
