// How fast garbage may be made: the promise that dead bytes stay below 25 % of live ones (or two
// log files, 32 MiB, where less than 128 MiB live).
//
//   dead / live   cleaner                           writers
//   below 15 %    rests                             go on
//   15 … 20 %     a slice now and then, more often  go on
//                 the more is dead
//   from 20 %     slice after slice if a writer     pay: a write waits until twice its bytes have
//                 waits, else half of the time      been freed at 23 %, nothing at 20 %, and
//                                                   linearly between
//
// What is left between 23 and 25 % is for the slice that is on the disk twice, and for writes that
// were let in at the same time. Deletes never wait: a mass delete may exceed the bound, for as long
// as copying what lives takes at half the disk's speed, and then no write makes it worse. What is
// about to be deleted too need not be copied if the cleaner is not in a hurry. No cliffs: writes
// wait for an eighth of a percent of what lives at a time, all that come meanwhile together.
//
// Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "engine/core.h"

namespace valfs::cleaner {

class Pacing {
 public:
  explicit Pacing(const Core& core) : core_(core) {}

  // --- writers ---

  // True if so many bytes more may be written at once: little is dead, or they are paid for.
  bool free_of_charge(uint64_t bytes) const;
  // Lets them be written if they may.
  bool try_admit(uint64_t bytes) { return is_below_slow(bytes) || take_paid(bytes); }
  // Waits until they may. Never for ever: not if nothing can be freed, and not after stop().
  void admit(uint64_t bytes);

  // --- the cleaner ---

  bool wanted() const;     // there is enough to be cleaned
  uint64_t slice() const;  // bytes to clean at a time
  // Rests before the next slice, after one that took so long; not while a writer waits.
  void rest(std::chrono::microseconds took);
  // A slice has given so many bytes, less what was copied.
  void gave(uint64_t bytes);
  // The cleaner rests, or nothing can be freed: whoever waits now need not.
  void release();
  void stop();

  // Bytes by which `dead` exceeds what the cleaner leaves alone.
  uint64_t debt() const;

 private:
  uint64_t share_of_live(uint64_t percent) const;
  uint64_t price(uint64_t bytes) const;
  bool is_below_slow(uint64_t bytes) const;
  bool take_paid(uint64_t bytes);
  void order(uint64_t bytes);
  std::chrono::microseconds rest_after(std::chrono::microseconds took) const;

  const Core& core_;
  std::mutex mutex_;
  std::condition_variable changed_;  // for writers
  std::condition_variable wanted_;   // for the cleaner: somebody has ordered
  uint64_t given_ = 0;               // by the cleaner, ever
  uint64_t claimed_ = 0;             // of that, by writers: the next one waits until more is given
  uint64_t ordered_ = 0;  // bytes that writers may write once what is claimed is given; 0: none
  std::atomic<int64_t> paid_{0};  // bytes that they may write now; below 0: overdrawn
  uint64_t releases_ = 0;         // calls of release(): whoever waited before is let in
  bool stopped_ = false;
};

}  // namespace valfs::cleaner
