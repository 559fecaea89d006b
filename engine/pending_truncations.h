// Promise P5: programs overwrite a file by cutting it to nothing and writing it anew. If power
// fails in between, an empty file would be all that is left, so no *timed* commit falls into that
// gap.
//
// A gap opens when a value is cut to nothing and closes with its next write, or after 20 ms.
// Thread-safe.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>

#include "engine/log/format.h"

namespace valfs {

class PendingTruncations {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::milliseconds kGap{20};

  // Before the truncation is appended.
  void open(log::ObjectId inode, TimePoint now) {
    const std::lock_guard lock(mutex_);
    gaps_[inode] = now;
  }
  // After the write that follows was appended.
  void close(log::ObjectId inode) {
    const std::lock_guard lock(mutex_);
    gaps_.erase(inode);
  }
  bool is_open(log::ObjectId inode) {
    const std::lock_guard lock(mutex_);
    return gaps_.count(inode) > 0;
  }
  bool none(TimePoint now) {
    return run_outside(now, [] {});
  }
  // Runs `commit` if there is no gap; no gap opens while it runs. False if there is one.
  bool run_outside(TimePoint now, const std::function<void()>& commit) {
    const std::lock_guard lock(mutex_);
    std::erase_if(gaps_, [now](const auto& gap) { return now - gap.second >= kGap; });
    if (!gaps_.empty()) return false;
    commit();
    return true;
  }

 private:
  std::mutex mutex_;
  std::map<log::ObjectId, TimePoint> gaps_;
};

}  // namespace valfs
