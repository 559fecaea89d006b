// Reads the groups that recovery keeps once more, record by record, for replay: one after the
// other, and where the storage is good for it by a thread of its own, a few groups ahead of whoever
// takes them.
#pragma once

#include <array>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "engine/recovery/file_scan.h"

namespace valfs::recovery {

// One thread uses it.
class GroupReader {
 public:
  struct Loaded {
    const FoundGroup* group = nullptr;
    std::vector<std::byte> image;  // views of `contents` go here
    log::GroupContents contents;
  };

  // `groups` and `files` must outlive it. `ahead`: with a thread.
  GroupReader(std::vector<const FoundGroup*> groups, const log::LogFiles& files, bool ahead);
  ~GroupReader();
  GroupReader(const GroupReader&) = delete;
  GroupReader& operator=(const GroupReader&) = delete;

  // The next group, good until the next call; null behind the last.
  const Loaded* next();

 private:
  static constexpr size_t kAhead = 4;  // groups in memory, of up to a slot each

  void load(size_t number);
  void run();

  const std::vector<const FoundGroup*> groups_;
  const log::LogFiles& files_;
  std::array<Loaded, kAhead> ring_;  // group n is in n % kAhead
  size_t given_ = 0;                 // so many were

  std::mutex mutex_;
  std::condition_variable changed_;
  size_t loaded_ = 0;     // so many are; guarded
  size_t taken_ = 0;      // so many need not stay; guarded
  bool stopped_ = false;  // guarded
  std::thread thread_;    // none: next() loads
};

}  // namespace valfs::recovery
