// How many bytes of each log file the index points to: current records with their headers. Whatever
// else a log file holds is dead. Guarded by the lock of the index.
#pragma once

#include <atomic>
#include <cstdint>
#include <unordered_map>

#include "engine/base/check.h"
#include "engine/log/format.h"

namespace valfs::index {

class LiveBytes {
 public:
  void add(log::FileId file, uint64_t bytes) {
    if (file != last_file_ || last_ == nullptr) {
      last_file_ = file;
      last_ = &files_[file];
    }
    *last_ += bytes;
    total_.fetch_add(bytes, std::memory_order_relaxed);
  }
  void subtract(log::FileId file, uint64_t bytes) {
    if (bytes == 0) return;  // a small piece of what compresses well may count for nothing
    const auto found = files_.find(file);
    VALFS_CHECK(found != files_.end() && found->second >= bytes);
    found->second -= bytes;
    total_.fetch_sub(bytes, std::memory_order_relaxed);
  }
  uint64_t of(log::FileId file) const {
    const auto found = files_.find(file);
    return found == files_.end() ? 0 : found->second;
  }
  // May be asked without the lock.
  uint64_t total() const { return total_.load(std::memory_order_relaxed); }
  void clear() {
    last_ = nullptr;
    files_.clear();
    total_ = 0;
  }
  // The file is gone; nothing of it may have been live.
  void forget(log::FileId file) {
    VALFS_CHECK(of(file) == 0);
    last_ = nullptr;
    files_.erase(file);
  }

 private:
  std::unordered_map<log::FileId, uint64_t> files_;
  // Most changes are about the same file as the one before.
  log::FileId last_file_ = 0;
  uint64_t* last_ = nullptr;
  std::atomic<uint64_t> total_{0};
};

}  // namespace valfs::index
