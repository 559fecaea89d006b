// Reads everything in a volume that is live and checks it against its checksums, at a pace: log
// files, the checkpoint, blobs. Of a running store, beside its work, or of one that nobody has
// mounted.
//
// Whatever is damaged and still live is found again by its value; what is dead is only counted. A
// value that changes or moves meanwhile is not reported.
#pragma once

#include <condition_variable>
#include <mutex>

#include "engine/checkpoint/checkpoint.h"
#include "engine/inspect/check.h"
#include "engine/inspect/finding.h"

namespace valfs::inspect {

struct ScrubProgress {
  bool running = false;
  bool stopped = false;  // before its end
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;       // as far as it is known
  uint64_t damaged = 0;           // findings: values, names, blobs, checkpoints
  uint64_t dead_damage = 0;       // damaged places that hold nothing current
  std::vector<Finding> findings;  // the first so many
};

// What is read, and how to look at it while others change it.
struct ScrubTarget {
  struct Log {
    log::LogFileRef file;
    uint64_t begin = 0;  // what lies before it was freed
    uint64_t end = 0;    // everything before it is durable
  };
  storage::Storage& storage;
  const log::LogFiles& files;
  std::vector<Log> logs;
  checkpoint::WithIndex with_index;
  std::function<uint64_t()> checkpoint;  // the generation that counts now; 0: none
  using Paced = std::function<bool(uint64_t bytes)>;
  // Checks the blob of an inode, if it still has one.
  std::function<void(log::ObjectId, const Paced&, const std::function<void(Finding)>&)> check_blob;
};

// Thread-safe; one run at a time.
class Scrubber {
 public:
  static constexpr size_t kMostFindings = 1000;

  // `rate`: bytes a second; 0: as fast as the disk gives them. EBUSY: another run is under way.
  // ECANCELED: stopped.
  Result<ScrubProgress> run(const ScrubTarget& target, uint64_t rate);
  ScrubProgress progress() const;
  // Ends a run under way soon; does not wait for it. `for_good`: later runs end at once.
  void stop(bool for_good = false);

 private:
  struct Live;

  bool paced(uint64_t bytes);
  bool stopping() const;
  void add(const ScrubTarget& target, Finding finding);
  void scrub_all(const ScrubTarget& target);
  void scrub_log(const ScrubTarget& target, const ScrubTarget::Log& log);
  static uint64_t left_from(const ScrubTarget& target, const ScrubTarget::Log& log);
  std::vector<Live> live_in(const ScrubTarget& target, log::FileId file) const;
  void check_live(const ScrubTarget& target, const ScrubTarget::Log& log, const Live& live);
  bool still_there(const ScrubTarget& target, const Live& live) const;
  void scrub_checkpoint(const ScrubTarget& target);
  void scrub_inodes(const ScrubTarget& target);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  ScrubProgress progress_;
  bool stop_ = false;
  bool closed_ = false;
  uint64_t rate_ = 0;
  std::chrono::steady_clock::time_point next_;  // when the next byte may be read
};

}  // namespace valfs::inspect
