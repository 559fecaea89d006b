// F5, P8: a failed write of the log is survived once, and truthfully: what is acknowledged
// afterwards is durable in a fresh log file. The second one is for good.
#include <gtest/gtest.h>

#include "tests/support/tree_model.h"

namespace valfs::test {
namespace {

using storage::CrashKind;
using storage::Operation;
using storage::OperationKind;
using storage::SimDisk;

// Fails the end of the n-th durable write from now, and, if `for_good`, all after it.
void fail_write(SimDisk& disk, int n, bool for_good) {
  auto left = std::make_shared<int>(n);
  disk.set_fault([left, for_good](const Operation& operation) {
    if (operation.kind != OperationKind::kCompletion) return 0;
    --*left;
    return *left == 0 || (for_good && *left < 0) ? EIO : 0;
  });
}

void write_some(Store& store, int from, int to) {
  for (int i = from; i < to; i++) {
    ASSERT_TRUE(put(store, "f" + std::to_string(i), pattern(static_cast<uint64_t>(i), 3000)));
  }
}

void expect_all(Store& store, int count) {
  for (int i = 0; i < count; i++) {
    const auto value = get(store, "f" + std::to_string(i));
    ASSERT_TRUE(value) << i << ": " << value.error().what;
    EXPECT_EQ(*value, pattern(static_cast<uint64_t>(i), 3000)) << i;
  }
}

TEST(Relocation, P2_P8_OneFailedWriteLosesNothing) {
  for (const CrashKind crash : {CrashKind::kPowerLoss, CrashKind::kProcessKill}) {
    for (int n = 1; n <= 6; n++) {
      SCOPED_TRACE("write " + std::to_string(n));
      SimDisk disk({.seed = static_cast<uint64_t>(n)});
      auto store = must_open(disk, small_options());
      fail_write(disk, n, false);
      for (int i = 0; i < 60; i += 10) {
        write_some(*store, i, i + 10);
        ASSERT_TRUE(store->sync());
      }
      EXPECT_EQ(store->stats().relocations, 1u);
      EXPECT_EQ(store->stats().failure, "");
      expect_all(*store, 60);
      EXPECT_EQ(check_index(*store), "");
      disk.set_fault({});
      store.reset();
      disk.restart(crash);
      store = must_open(disk, small_options());
      EXPECT_EQ(store->stats().damaged_groups, 0u);
      expect_all(*store, 60);
      ASSERT_TRUE(store->gc());
      expect_all(*store, 60);
      EXPECT_EQ(check_index(*store), "");
    }
  }
}

// Manifests among the groups that move: what they say of log files must fit where things are now,
// and not call freed what was moved to a file that they do not know.
TEST(Relocation, P2_AFailedWriteWhileCleaning) {
  for (int n = 1; n <= 60; n++) {
    // Later manifests would hide what is wrong with one that has moved: half of the time there are
    // none.
    for (const auto& [without_checkpoint, at_once] :
         {std::pair(false, false), {false, true}, {true, false}, {true, true}}) {
      SCOPED_TRACE("write " + std::to_string(n) + (at_once ? ", then power loss" : ""));
      StoreOptions options = small_options();
      options.log_file_size = 96 * kKiB;
      SimDisk disk({.seed = static_cast<uint64_t>(n)});
      auto store = must_open(disk, options);
      write_some(*store, 0, 60);
      ASSERT_TRUE(store->checkpoint());
      fail_write(disk, n, false);
      // Each of these may have to clean first, while groups are on their way.
      for (int i = 0; i < 150; i++) {
        const int file = i * 7 % 60;
        if (i % 5 == 0) {
          ASSERT_TRUE(remove(*store, "f" + std::to_string(file)));
        }
        write_some(*store, file, file + 1);
        if (at_once && store->stats().relocations > 0) break;
      }
      ASSERT_TRUE(store->sync());
      expect_all(*store, 60);
      EXPECT_EQ(check_index(*store), "");
      disk.set_fault({});
      store.reset();
      disk.restart(CrashKind::kPowerLoss);
      for (const std::string& path : disk.files()) {
        const bool checkpoint = path.rfind("checkpoint/", 0) == 0;
        if (without_checkpoint && checkpoint) {
          ASSERT_TRUE(disk.erase(path));
        }
      }
      for (int mounts = 0; mounts < 3; mounts++) {
        auto opened = open_store(disk, options);
        ASSERT_TRUE(opened) << opened.error().what;
        EXPECT_EQ((*opened)->stats().damaged_groups, 0u);
        expect_all(**opened, 60);
        EXPECT_EQ(check_index(**opened), "");
        if (mounts == 1) {
          ASSERT_TRUE((*opened)->close());
        }
        (*opened).reset();
        disk.restart(CrashKind::kPowerLoss);
      }
    }
  }
}

TEST(Relocation, P8_TheSecondFailureSticks) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  write_some(*store, 0, 10);
  ASSERT_TRUE(store->sync());
  fail_write(disk, 1, true);
  write_some(*store, 10, 20);
  EXPECT_FALSE(store->sync());
  disk.set_fault({});
  EXPECT_FALSE(store->sync()) << "forgotten by a retry";
  EXPECT_FALSE(put(*store, "more", pattern(1, 10)));
  EXPECT_NE(store->stats().failure, "");
  expect_all(*store, 20);  // what was accepted stays readable
  store.reset();
  disk.restart(CrashKind::kProcessKill);
  store = must_open(disk, small_options());
  expect_all(*store, 20);  // and was in its slots (P1)
}

// Killed, or without power, at every operation around a failed write.
TEST(Relocation, P1_P2_MayBeStoppedAtEveryStep) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  write_some(*store, 0, 10);
  ASSERT_TRUE(store->sync());
  write_some(*store, 10, 30);
  uint64_t stops = 0;
  int completions = 0;
  disk.set_fault([&](const Operation& operation) {
    if (operation.kind >= OperationKind::kOpen || ::testing::Test::HasFailure()) return 0;
    const bool kill = stops % 2 == 0;
    const auto left =
        kill ? disk.clone_after_process_kill(stops) : disk.clone_after_power_loss(stops);
    stops++;
    auto opened = open_store(*left, small_options());
    EXPECT_TRUE(opened) << stops << ": " << (opened ? "" : opened.error().what);
    if (opened) expect_all(**opened, kill ? 30 : 10);
    return operation.kind == OperationKind::kCompletion && completions++ == 0 ? EIO : 0;
  });
  ASSERT_TRUE(store->sync());
  disk.set_fault({});
  EXPECT_GT(stops, 10u);
  EXPECT_EQ(store->stats().relocations, 1u);
  expect_all(*store, 30);
}

}  // namespace
}  // namespace valfs::test
