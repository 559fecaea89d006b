// What a store does by itself: timed commits; spare log files, flushing large values, checkpoints;
// cleaning. A thread for each of the three, so that slow work never delays a commit; or none, and
// tick() is called.
#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

#include "engine/blob/blobs.h"
#include "engine/checkpoint/checkpointer.h"
#include "engine/cleaner/cleaner.h"
#include "engine/cleaner/pacing.h"
#include "engine/store.h"

namespace valfs {

class Upkeep {
 public:
  Upkeep(Core& core, blob::Blobs& blobs, checkpoint::Checkpointer& checkpointer,
         cleaner::Cleaner& cleaner)
      : core_(core), blobs_(blobs), checkpointer_(checkpointer), cleaner_(cleaner), pacing_(core) {
    core_.pace = [this](uint64_t bytes) { pace(bytes); };
    core_.make_room = [this](log::LogWriter::Purpose purpose) {
      return make_room(purpose).value_or(false);
    };
  }
  ~Upkeep() { stop(); }

  void start();
  void stop();  // waits for what is under way

  // One round of everything that is due.
  void commit_if_due();
  void tick();

  // Makes room on a full disk: cleans the file that gives most. False if none gives anything, or
  // too little for ordinary writes: they must leave the reserve as it was.
  Result<bool> make_room(log::LogWriter::Purpose purpose);
  // Cleans one file, however much is dead. True if it gave something.
  Result<bool> clean_step();
  uint64_t debt() const { return pacing_.debt(); }
  // A change of so many bytes would have to wait for the cleaner.
  bool makes_writers_wait(uint64_t bytes) const { return !pacing_.free_of_charge(bytes); }
  Result<GcProgress> collect();
  GcProgress progress() const;
  // Sizes new log files by what the volume holds.
  void adapt_file_size();
  // Flushes large values; all of them, or those that are due.
  Status flush_blobs(bool all);

 private:
  using TimePoint = std::chrono::steady_clock::time_point;

  void run_committer();
  void run_upkeep();
  void run_cleaner();
  void pace(uint64_t bytes);
  void prepare_spares();
  log::LogFileRef choose_fitting() const;
  void checkpoint_if_due();
  void clean_if_due();
  Result<bool> clean_some();
  Result<bool> clean_for_room();
  Status checkpoint_for_cleaning();
  void sum_quiet_blobs();
  Status shrink_blobs();
  void report(const char* what, const Status& status);
  Result<cleaner::Outcome> clean(const log::LogFileRef& file, uint64_t bytes, bool covered);
  Result<cleaner::Outcome> clean_whole(const log::LogFileRef& file);
  Status clean_all(std::vector<log::LogFileRef> files);
  Status clean_worthy();
  Status collect_all();

  Core& core_;
  blob::Blobs& blobs_;
  checkpoint::Checkpointer& checkpointer_;
  cleaner::Cleaner& cleaner_;
  cleaner::Pacing pacing_;

  std::mutex collecting_;  // one collection at a time
  // One file at a time. Taken by whoever needs room, maybe with a value lock: no value lock is
  // taken under it.
  std::mutex cleaning_;
  mutable std::mutex progress_mutex_;
  GcProgress progress_;

  std::mutex mutex_;
  std::condition_variable wake_committer_;
  std::condition_variable wake_upkeep_;
  std::condition_variable wake_cleaner_;
  bool stopping_ = false;
  std::thread committer_;
  std::thread upkeep_;
  std::thread cleaning_thread_;
  // Of the upkeep thread.
  log::GroupSequence seen_group_ = 0;
  TimePoint quiet_since_{};
  std::string last_report_;
  int pause_ = 0;  // without threads: changes that need not try to clean
};

}  // namespace valfs
