// How many files are open at a time: those that were used least lately are closed, and opened again
// when they are needed.
//
// Never closed are a file in use at the moment, one with bytes that were not synced (an error of
// their writing back is told to the descriptor that wrote them, P8), and one that cannot be opened
// by its path again, because it was removed or renamed while somebody has it: so the count may
// exceed the limit. Which is used least lately is known roughly.
//
// Thread-safe. Lock order: this, then a file's own.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "engine/base/status.h"

namespace valfs::storage {

class KernelFile;

class OpenFiles {
 public:
  static constexpr size_t kLeast = 4;
  explicit OpenFiles(size_t limit) : limit_(limit < kLeast ? kLeast : limit) {}

  void made(const std::string& path, KernelFile& file);  // it is open
  void gone(const std::string& path, KernelFile& file);
  void reopened(KernelFile& file);
  // Before the path leads no longer to the file: whoever has it keeps it open.
  Status keep(const std::string& path);

  // Rises whenever a file is opened.
  uint64_t now() const { return now_.load(std::memory_order_relaxed); }

 private:
  void add(KernelFile& file);

  const size_t limit_;
  std::atomic<uint64_t> now_{0};
  std::mutex mutex_;  // guards what follows
  std::unordered_set<KernelFile*> open_;
  std::unordered_multimap<std::string, KernelFile*> all_;
};

}  // namespace valfs::storage
