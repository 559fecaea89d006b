// Garbage collection: how much it gives, what it must leave alone, and that it may be stopped at
// any step.
#include <gtest/gtest.h>

#include "tests/support/tree_model.h"

namespace valfs::test {
namespace {

using storage::CrashKind;
using storage::Operation;
using storage::OperationKind;
using storage::SimDisk;

constexpr int kFiles = 120;

std::string name(int i) {
  return "d" + std::to_string(i % 3) + "/f" + std::to_string(i);
}
Bytes value(int i, int version) {
  return pattern(static_cast<uint64_t>(i * 10 + version), static_cast<size_t>(500 + 97 * i));
}

// Everything written three times, half of it removed.
void make_garbage(Store& store) {
  for (int i = 0; i < 3; i++) ASSERT_TRUE(make_directory(store, "d" + std::to_string(i)));
  for (int version = 0; version < 3; version++) {
    for (int i = 0; i < kFiles; i++) {
      ASSERT_TRUE(put(store, name(i), value(i, version)));
      if (i % 10 != 0) continue;
      ASSERT_TRUE(store.sync());
    }
  }
  for (int i = 0; i < kFiles; i += 2) ASSERT_TRUE(remove(store, name(i)));
}

std::string check_values(Store& store) {
  for (int i = 0; i < kFiles; i++) {
    const auto bytes = get(store, name(i));
    if (i % 2 == 0) {
      if (bytes) return name(i) + " is back";
    } else if (!bytes) {
      return name(i) + ": " + bytes.error().what;
    } else if (*bytes != value(i, 2)) {
      return name(i) + " has other contents";
    }
  }
  return check_index(store);
}

void erase_checkpoints(SimDisk& disk) {
  for (const std::string& path : disk.files()) {
    if (path.rfind("checkpoint/", 0) != 0) continue;
    ASSERT_TRUE(disk.erase(path));
  }
}

TEST(Cleaner, LittleIsDeadAfterwards) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  make_garbage(*store);
  const auto before = store->stats();
  EXPECT_GT(before.dead_bytes, before.live_bytes / 5);
  const auto progress = store->gc();
  ASSERT_TRUE(progress) << progress.error().what;
  const auto after = store->stats();
  EXPECT_GT(progress->files_freed, 0u);
  EXPECT_LE(after.dead_bytes * 4, after.live_bytes)
      << after.dead_bytes << " dead, " << after.live_bytes << " live";
  EXPECT_EQ(check_values(*store), "");
  ASSERT_TRUE(store->close());
  store.reset();
  erase_checkpoints(disk);
  store = must_open(disk, small_options());
  EXPECT_FALSE(store->stats().used_checkpoint);
  EXPECT_EQ(check_values(*store), "");
}

TEST(Cleaner, StepsComeToAnEnd) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  make_garbage(*store);
  int steps = 0;
  for (; steps < 1000; steps++) {
    const auto more = store->clean_step();
    ASSERT_TRUE(more) << more.error().what;
    if (!*more) break;
  }
  EXPECT_LT(steps, 100);
  EXPECT_EQ(check_values(*store), "");
}

// A volume at rest must not be rewritten for ever because of tombstones that are still needed.
TEST(Cleaner, UpkeepComesToRest) {
  SimDisk disk({});
  FakeClock clock;
  auto store = must_open(disk, small_options(clock));
  for (int i = 0; i < 100; i++) {  // cold and live: what the tombstones are kept for
    ASSERT_TRUE(put(*store, "cold" + std::to_string(i), pattern(1, 10'000)));
  }
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < 800; i++) ASSERT_TRUE(create(*store, "t" + std::to_string(i)));
    for (int i = 0; i < 800; i++) ASSERT_TRUE(remove(*store, "t" + std::to_string(i)));
  }
  ASSERT_TRUE(store->sync());
  uint64_t copied = 0;
  int quiet = 0;
  for (int i = 0; i < 400 && quiet < 50; i++) {
    clock.advance(std::chrono::milliseconds(100));
    store->tick();
    const uint64_t now = store->stats().copied_bytes;
    quiet = now == copied ? quiet + 1 : 0;
    copied = now;
  }
  EXPECT_GE(quiet, 50) << "still copying after " << copied << " bytes";
  const auto stats = store->stats();
  EXPECT_LE(stats.dead_bytes, stats.live_bytes / 4 + 2 * 256 * kKiB);
  EXPECT_EQ(check_index(*store), "");
}

// Stopped before every single operation of the disk, by power loss and by kill.
TEST(Cleaner, MayBeStoppedAtEveryStep) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  make_garbage(*store);
  ASSERT_TRUE(store->sync());
  uint64_t stops = 0;
  disk.set_fault([&](const Operation& operation) {
    if (operation.kind >= OperationKind::kOpen || ::testing::Test::HasFailure()) return 0;
    const bool kill = stops % 3 == 0;
    const auto left =
        kill ? disk.clone_after_process_kill(stops) : disk.clone_after_power_loss(stops);
    stops++;
    if (stops % 4 == 0) erase_checkpoints(*left);
    auto opened = open_store(*left, small_options());
    EXPECT_TRUE(opened) << stops << ": " << (opened ? "" : opened.error().what);
    if (!opened) return 0;
    EXPECT_EQ(check_values(**opened), "") << stops;
    if (stops % 5 == 0) {
      const auto collected = (*opened)->gc();
      EXPECT_TRUE(collected) << stops << ": " << (collected ? "" : collected.error().what);
      EXPECT_EQ(check_values(**opened), "") << stops;
    }
    return 0;
  });
  ASSERT_TRUE(store->gc());
  disk.set_fault({});
  EXPECT_GT(stops, 50u);
  EXPECT_EQ(check_values(*store), "");
}

TEST(Cleaner, ErrorsOfTheDiskLoseNothing) {
  for (uint64_t at = 0; at < 160; at += 3) {
    SCOPED_TRACE("operation " + std::to_string(at));
    SimDisk disk({.seed = at + 1});
    auto store = must_open(disk, small_options());
    make_garbage(*store);
    ASSERT_TRUE(store->sync());
    uint64_t seen = 0;
    disk.set_fault([&](const Operation& operation) {
      if (operation.kind >= OperationKind::kOpen) return 0;
      return seen++ == at ? EIO : 0;
    });
    (void)store->gc();
    disk.set_fault({});
    EXPECT_EQ(check_values(*store), "");
    store.reset();
    disk.restart(at % 2 == 0 ? CrashKind::kPowerLoss : CrashKind::kProcessKill);
    if (at % 4 == 0) erase_checkpoints(disk);
    auto opened = open_store(disk, small_options());
    ASSERT_TRUE(opened) << opened.error().what;
    EXPECT_EQ(check_values(**opened), "");
  }
}

// Many pieces of one record, more than one group can take.
TEST(Cleaner, CopiesAValueOfManyPieces) {
  SimDisk disk({});
  auto options = small_options();
  options.fold_extents = 100'000;
  auto store = must_open(disk, options);
  Bytes model = pattern(1, 30'000);
  ASSERT_TRUE(put(*store, "a", model));
  for (size_t at = 0; at < model.size(); at += 40) {
    const Bytes one = pattern(at, 1);
    ASSERT_TRUE(write(*store, "a", at, one));
    model[at] = one[0];
  }
  ASSERT_TRUE(put(*store, "filler", pattern(2, 30'000)));
  ASSERT_TRUE(remove(*store, "filler"));
  const auto collected = store->gc();
  ASSERT_TRUE(collected) << collected.error().what;
  EXPECT_GT(collected->files_freed, 0u);
  EXPECT_EQ(*get(*store, "a"), model);
  EXPECT_EQ(check_index(*store), "");
  ASSERT_TRUE(store->close());
  store.reset();
  erase_checkpoints(disk);
  store = must_open(disk, options);
  EXPECT_EQ(*get(*store, "a"), model);
}

}  // namespace
}  // namespace valfs::test
