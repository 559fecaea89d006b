// Power cuts and kills at every step of random histories. After each the store must open, hold what
// a prefix of the history gives (P3) with everything that was synced in it (P2) or, if only the
// process died, everything that had returned (P1), and work on. Recoveries are cut up to three
// times in a row.
//
// VALFS_CUTS: how many crashes to try, in all tests together. VALFS_SEED: the first seed.
// VALFS_DEBUG: say which byte of a large value is wrong.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <iostream>

#include "tests/support/crash_check.h"

namespace valfs::test {
namespace {

using storage::CrashKind;
using storage::Operation;
using storage::OperationKind;
using storage::SimDisk;

constexpr uint64_t kTests = 4;
// One in so many operations of the disk is a crash; all of them in turn, over the histories.
constexpr uint64_t kRarity = 6;

// Small, and different from history to history: what is rare under one choice is common under
// another.
StoreOptions options_for(uint64_t seed, const FakeClock& clock) {
  StoreOptions options = small_options(clock);
  options.log_file_size = (seed % 3 == 0 ? 256 : 128) * kKiB;
  options.slots = seed % 5 == 0 ? 2 : 4;
  options.checkpoint_after = (seed % 2 == 0 ? 512 : 128) * kKiB;
  if (seed % 4 == 1) options.compression = Compression::kLz4;
  if (seed % 4 == 2) options.compression = Compression::kZstd;
  return options;
}

// Runs one history and crashes copies of the disk on its way.
void run_history(uint64_t seed, size_t sector_size, bool large, CrashTotals& totals) {
  SCOPED_TRACE("VALFS_SEED=" + std::to_string(seed) + " sectors of " + std::to_string(sector_size) +
               (large ? ", with blobs" : ""));
  std::mt19937_64 random(seed);
  SimDisk disk({.seed = seed, .sector_size = sector_size, .staging_on_disk = seed % 4 == 0});
  FakeClock clock;
  History history;
  const StoreOptions options = options_for(seed, clock);
  auto store = must_open(disk, options);
  CrashCheck crash(history, options, totals, {});
  // Each crash is one at an operation of the disk: the clone has nothing of it yet.
  disk.set_fault([&](const Operation& operation) {
    const bool observes = operation.kind >= OperationKind::kOpen;
    if (observes || random() % kRarity != 0 || ::testing::Test::HasFailure()) return 0;
    for (uint64_t subset = 0; subset < 1 + random() % 3; subset++) {
      const uint64_t crash_seed = random();
      totals.note(operation, history.action());
      if (random() % 4 == 0) {
        crash.check(*disk.clone_after_process_kill(crash_seed), CrashKind::kProcessKill,
                    crash_seed);
      } else {
        crash.check(*disk.clone_after_power_loss(crash_seed), CrashKind::kPowerLoss, crash_seed);
      }
    }
    return 0;
  });
  ActionSource source(seed * 31 + 7, large);
  const uint64_t count = 30 + random() % 50;
  for (uint64_t i = 0; i < count && !::testing::Test::HasFailure(); i++) {
    const Action action = source.next(history.last());
    const auto done = history.run(*store, clock, action);
    ASSERT_TRUE(done) << action.text() << ": " << done.error().what << "\n" << history.text();
    if (random() % 4 == 0) disk.step();
  }
  disk.set_fault({});
  if (::testing::Test::HasFailure()) return;
  const StoreImage image = StoreImage::of(*store);
  EXPECT_EQ(difference(image, history.last()), "") << history.text();
  EXPECT_EQ(check_index(*store), "");
  EXPECT_TRUE(store->close());
}

void run_cuts(uint64_t salt, size_t sector_size, bool large) {
  const uint64_t wanted = from_environment("VALFS_CUTS", with_effort(20'000)) / kTests;
  const uint64_t first = from_environment("VALFS_SEED", 1) + salt;
  ::testing::Test::RecordProperty("first_seed", std::to_string(first));
  const auto start = std::chrono::steady_clock::now();
  CrashTotals totals;
  uint64_t histories = 0;
  for (uint64_t seed = first; totals.crashes < wanted && !::testing::Test::HasFailure(); seed++) {
    run_history(seed, sector_size, large, totals);
    histories++;
  }
  std::cout << totals.text(start) << "; " << histories << " histories from seed " << first << "\n";
  // A bug that was planted counts as found if a promise is broken, not if this is.
  const char* bug = std::getenv("VALFS_BUG");
  const bool has_bug = bug != nullptr && *bug != '\0';
  if (wanted < 1000 || has_bug || ::testing::Test::HasFailure()) return;
  // The test is worth nothing if it does not reach what it is about.
  EXPECT_GT(totals.in_cleaner, wanted / 50);
  EXPECT_GT(totals.in_checkpoint, wanted / 50);
  EXPECT_GT(totals.in_superblock, wanted / 50);
  EXPECT_GT(totals.kills, wanted / 10);
  EXPECT_EQ(totals.in_blobs > wanted / 100, large);
  for (const uint64_t cut : totals.recoveries) EXPECT_GT(cut, wanted / 50);
  EXPECT_GT(totals.drained, 0u);
  EXPECT_GT(totals.dropped, 0u);
}

TEST(PowerCut, P1_P2_P3_SmallValuesLargeSectors) {
  run_cuts(0, 4096, false);
}
TEST(PowerCut, P1_P2_P3_SmallValuesSmallSectors) {
  run_cuts(100'000'000, 512, false);
}
TEST(PowerCut, P1_P2_P3_LargeValuesLargeSectors) {
  run_cuts(200'000'000, 4096, true);
}
TEST(PowerCut, P1_P2_P3_LargeValuesSmallSectors) {
  run_cuts(300'000'000, 512, true);
}

}  // namespace
}  // namespace valfs::test
