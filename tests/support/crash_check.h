// What every crash is held to: the store opens, holds a prefix of the history with all that was
// promised (P1, P2, P3, P5, P6), and works on. Recoveries are crashed, too.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>

#include "tests/support/history.h"

namespace valfs::test {

uint64_t from_environment(const char* name, uint64_t otherwise);
// So much of `count` as VALFS_EFFORT (percent, 100) asks for.
uint64_t with_effort(uint64_t count);
// All there is, instead of a sample (VALFS_NIGHTLY); never with less effort.
bool nightly();

// How much of what has been tried.
struct CrashTotals {
  static constexpr size_t kDeepest = 3;

  uint64_t crashes = 0;
  uint64_t kills = 0;                           // of them, the process only
  std::array<uint64_t, kDeepest> recoveries{};  // cut, by depth: of a recovery, of the one after …
  uint64_t in_cleaner = 0;
  uint64_t in_checkpoint = 0;
  uint64_t in_superblock = 0;
  uint64_t in_blobs = 0;
  uint64_t dropped = 0;          // groups that were torn
  uint64_t drained = 0;          // groups that were taken from staging slots
  uint64_t with_checkpoint = 0;  // mounts

  // A crash at this operation, while `action` ran.
  void note(const storage::Operation& operation, const Action& action);
  std::string text(std::chrono::steady_clock::time_point since) const;
};

class CrashCheck {
 public:
  struct Depth {
    bool cut_recoveries = true;
    bool work_on = true;
  };
  CrashCheck(const History& history, const StoreOptions& options, CrashTotals& totals, Depth depth)
      : history_(history), options_(options), totals_(totals), depth_(depth) {}

  // Opens what a crash of that kind has left, and checks it. Adds a failure to the test if
  // something is wrong.
  void check(storage::SimDisk& disk, storage::CrashKind kind, uint64_t seed);

 private:
  // Cuts the next recoveries; false if one failed for another reason.
  bool cut_recoveries(storage::SimDisk& disk, bool killed, std::mt19937_64& random);
  void work_on(storage::SimDisk& disk, std::unique_ptr<Store> store, StoreImage& image,
               std::mt19937_64& random);
  void fail_with(const std::string& what);

  const History& history_;
  const StoreOptions options_;
  CrashTotals& totals_;
  const Depth depth_;
  std::string trace_;
};

}  // namespace valfs::test
