// How fast garbage may be made: the promise that dead bytes stay below 25 % of live ones (or 16
// MiB, where less than 64 MiB live).
//
//   dead / live   cleaner                           writers
//   below 15 %    rests                             go on
//   15 … 20 %     a slice now and then, more often   go on
//                 the more is dead
//   from 20 %     slice after slice                 pay: a write waits until twice its bytes have
//   been
//                                                   freed at 23 %, nothing at 20 %, and linearly
//                                                   between
//
// What is left between 23 and 25 % is for the slice that is on the disk twice, and for writes that
// were let in at the same time. Deletes never wait: a mass delete may exceed the bound, and then no
// write makes it worse. No cliffs: each write waits for its own bytes only.
//
// Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "engine/core.h"

namespace valfs::cleaner {

class Pacing {
 public:
  explicit Pacing(const Core& core) : core_(core) {}

  // --- writers ---

  // True if so many bytes more may be written at once.
  bool free_of_charge(uint64_t bytes) const;
  // Waits until they may. Never for ever: not if nothing can be freed, and not after stop().
  void admit(uint64_t bytes);

  // --- the cleaner ---

  bool wanted() const;     // there is enough to be cleaned
  uint64_t slice() const;  // bytes to clean at a time
  // How long to rest before the next slice.
  std::chrono::milliseconds rest() const;
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

  const Core& core_;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t given_ = 0;    // by the cleaner, ever
  uint64_t claimed_ = 0;  // of that, by writers: the next one waits until more is given
  bool stopped_ = false;
};

}  // namespace valfs::cleaner
