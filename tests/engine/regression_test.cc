// Histories that once broke a promise, each as short as it could be made.
#include <gtest/gtest.h>

#include "engine/log/superblock.h"
#include "tests/support/crash_check.h"
#include "tests/support/sim_store.h"

namespace valfs::test {
namespace {

using namespace std::chrono_literals;
using storage::SimDisk;

constexpr size_t kChunk = 64 * 1024;

struct Volume {
  explicit Volume(uint64_t capacity = 1 << 30)
      : disk({.seed = 7, .capacity = capacity}),
        options(small_options(clock)),
        store(must_open(disk, options)) {}

  // A value in bin/ of so many bytes, durable.
  void put_large(const std::string& name, size_t size) {
    ASSERT_TRUE(create(*store, name));
    for (size_t at = 0; at < size; at += 16384) {
      ASSERT_TRUE(write(*store, name, at, Bytes(16384, std::byte{0xaa})));
    }
    ASSERT_TRUE(store->sync());
  }
  void tick() {
    clock.advance(100ms);
    store->tick();
  }

  SimDisk disk;
  FakeClock clock;
  StoreOptions options;
  std::unique_ptr<Store> store;
};

// A walk over the index saw changes that the log lost: the index pointed to groups that were not
// there, and later writes were taken for old ones.
TEST(Regression, P3_ACheckpointNeverKnowsMoreThanTheLog) {
  Volume volume;
  ASSERT_TRUE(create(*volume.store, "a"));
  ASSERT_TRUE(write(*volume.store, "a", 0, pattern(1, 1000)));
  ASSERT_TRUE(volume.store->sync());
  bool written = false;
  volume.disk.set_fault([&](const storage::Operation& operation) {
    const bool walk = operation.kind == storage::OperationKind::kCreate &&
                      operation.path.rfind("checkpoint/", 0) == 0;
    if (walk && !std::exchange(written, true)) {
      EXPECT_TRUE(create(*volume.store, "new"));
      EXPECT_TRUE(write(*volume.store, "new", 0, pattern(2, 1000)));
      for (int i = 0; i < 50; i++) {
        EXPECT_TRUE(write(*volume.store, "a", 0, pattern(3 + i, 1000)));
      }
    }
    return 0;
  });
  ASSERT_TRUE(volume.store->checkpoint());
  ASSERT_TRUE(written);
  for (uint64_t seed = 1; seed <= 5; seed++) {
    const auto disk = volume.disk.clone_after_power_loss(seed);
    const auto store = must_open(*disk, volume.options);
    ASSERT_TRUE(get(*store, "a"));
    ASSERT_TRUE(write(*store, "a", 0, pattern(200, 1000)));
    ASSERT_TRUE(store->sync());
    const auto value = get(*store, "a");
    ASSERT_TRUE(value);
    EXPECT_EQ(*value, pattern(200, 1000));
  }
}

// A truncation put the old sum of a chunk back into the log, and the next overwrite of that chunk
// did not take it out again.
TEST(Regression, P2_AnOverwrittenChunkHasNoOldSumInTheLog) {
  for (const size_t size : {4 * kChunk, 6 * kChunk}) {
    Volume volume;
    volume.put_large("f", 4 * kChunk);
    ASSERT_TRUE(write(*volume.store, "f", 0, pattern(90, 100)));
    ASSERT_TRUE(truncate(*volume.store, "f", size));
    ASSERT_TRUE(write(*volume.store, "f", 4 * kChunk - 100, pattern(91, 100)));
    ASSERT_TRUE(volume.store->sync());
    for (const bool killed : {false, true}) {
      const auto disk =
          killed ? volume.disk.clone_after_process_kill(1) : volume.disk.clone_after_power_loss(1);
      EXPECT_TRUE(get(*must_open(*disk, volume.options), "f"));
    }
  }
}

// Bytes that a truncation had cut off came back when the value grew again.
TEST(Regression, P0_BytesThatWereCutOffStayAway) {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    Volume volume;
    volume.put_large("f", 4 * kChunk);
    const size_t cut = seed % 2 == 0 ? kChunk : kChunk + 1000;
    ASSERT_TRUE(truncate(*volume.store, "f", cut));
    ASSERT_TRUE(truncate(*volume.store, "f", 4 * kChunk));
    ASSERT_TRUE(create(*volume.store, "other"));
    ASSERT_TRUE(sync(*volume.store, "other"));  // the log, not the bytes of f
    const auto disk = volume.disk.clone_after_power_loss(seed);
    const auto value = get(*must_open(*disk, volume.options), "f");
    ASSERT_TRUE(value);
    for (size_t i = cut; i < value->size(); i++) ASSERT_EQ((*value)[i], std::byte{0}) << i;
  }
}

// df counted what a truncated large value had taken, until the next mount.
TEST(Regression, P10_BytesOfLargeValuesAreCountedExactly) {
  Volume volume;
  volume.put_large("f", 64 * kChunk);
  ASSERT_TRUE(truncate(*volume.store, "f", kChunk));
  volume.tick();
  EXPECT_EQ(volume.store->stats().blob_bytes, kChunk);
  ASSERT_TRUE(remove(*volume.store, "f"));
  ASSERT_TRUE(volume.store->sync());
  for (int i = 0; i < 3; i++) volume.tick();
  EXPECT_EQ(volume.store->stats().blob_bytes, 0u);
  // A hole that is filled takes space as well.
  ASSERT_TRUE(create(*volume.store, "s"));
  ASSERT_TRUE(write(*volume.store, "s", 0, pattern(1, kChunk)));
  ASSERT_TRUE(truncate(*volume.store, "s", 4 * kChunk));
  for (size_t at = kChunk; at < 4 * kChunk; at += 16384) {
    ASSERT_TRUE(write(*volume.store, "s", at, pattern(at, 16384)));
  }
  EXPECT_GE(volume.store->stats().blob_bytes, 4 * kChunk);
}

// Tombstones used up the reserve of a full volume; then nothing could be removed, and the volume
// not even be mounted.
TEST(Regression, P10_AFullVolumeCanBeEmptied) {
  Volume volume(8 << 20);
  // With long names fewer files fit, which is only a matter of count.
  const std::string tail(with_effort(100) < 100 ? 160 : 0, 'n');
  const auto name = [&](int i) { return "f" + std::to_string(i) + tail; };
  int made = 0;
  while (create(*volume.store, name(made))) {
    if (++made % 100 == 0) volume.tick();
  }
  ASSERT_GT(made, 1000);
  for (int removed = 0; removed < made; removed++) {
    const auto status = remove(*volume.store, name(removed));
    ASSERT_TRUE(status) << removed << " of " << made << ": " << status.error().what;
    if (removed % 100 == 0) volume.tick();
  }
  ASSERT_TRUE(volume.store->gc());
  ASSERT_TRUE(volume.store->close());
  volume.store.reset();
  const auto store = must_open(volume.disk, volume.options);
  EXPECT_TRUE(create(*store, "again"));
}

// A slot that was full between a truncation to nothing and the write after it made the empty file
// durable.
TEST(Regression, P5_OverwritingInBulkLeavesNoEmptyFile) {
  Volume volume;
  constexpr int kFiles = 40;
  const auto name = [](int i) { return "f" + std::to_string(i); };
  for (int i = 0; i < kFiles; i++) {
    ASSERT_TRUE(put(*volume.store, name(i), pattern(i, 20000)));
  }
  ASSERT_TRUE(volume.store->sync());
  for (int i = 0; i < kFiles; i++) {
    ASSERT_TRUE(put(*volume.store, name(i), pattern(100 + i, 20000)));
    while (volume.disk.step()) {
    }
    const auto disk = volume.disk.clone_after_power_loss(i);
    const auto store = must_open(*disk, volume.options);
    for (int k = 0; k < kFiles; k++) {
      const auto value = get(*store, name(k));
      ASSERT_TRUE(value);
      EXPECT_FALSE(value->empty()) << name(k) << " after overwriting " << i;
    }
  }
}

// A power cut tore the second pair of superblock copies, and another one, while the next mount
// raised the epoch, the first: no whole copy was left.
TEST(Regression, P3_TwoPowerCutsLeaveAWholeSuperblock) {
  for (uint64_t round = 0; round < 20'000; round++) {
    SimDisk disk({.seed = round, .sector_size = 512});
    log::Superblock superblock;
    ASSERT_TRUE(log::create_superblock(disk, superblock));
    for (const uint64_t cut : {1 + round % 8, 1 + round / 8 % 8}) {
      disk.cut_at(cut);
      superblock.epoch++;
      superblock.cut_count++;
      superblock.cuts[superblock.cut_count * 40] = {superblock.epoch, 0, cut};
      (void)log::write_superblock(disk, superblock);
      disk.restart(storage::CrashKind::kPowerLoss);
      const auto left = log::read_superblock(disk);
      ASSERT_TRUE(left) << "round " << round << ": " << left.error().what;
      superblock = *left;
    }
  }
}

// The daemon was killed between writing into a large value and saying so in the log. The next one
// summed what lay in the page cache, and never flushed it: power loss brought the old bytes back.
TEST(Regression, P2_WhatAKilledDaemonLeftInThePageCacheIsFlushed) {
  Volume volume;
  volume.put_large("f", 4 * kChunk);
  volume.tick();
  std::unique_ptr<SimDisk> left;
  bool written = false;
  volume.disk.set_fault([&](const storage::Operation& operation) {
    if (operation.kind >= storage::OperationKind::kOpen) return 0;
    if (written && !left) left = volume.disk.clone_after_process_kill(1);
    written |=
        operation.path.rfind("bin/", 0) == 0 && operation.kind == storage::OperationKind::kWrite;
    return 0;
  });
  for (uint64_t i = 0; !left && i < 2000; i++) {
    ASSERT_TRUE(volume.store->checkpoint());  // nothing tells the next mount to look at the value
    ASSERT_TRUE(write(*volume.store, "f", 1000 * (i % 200), pattern(i, 2000)));
    written = false;
  }
  ASSERT_TRUE(left);
  auto store = must_open(*left, volume.options);
  const auto found = get(*store, "f");
  ASSERT_TRUE(found);
  ASSERT_TRUE(sync(*store, "f"));
  for (uint64_t seed = 1; seed <= 5; seed++) {
    const auto disk = left->clone_after_power_loss(seed);
    const auto again = get(*must_open(*disk, volume.options), "f");
    ASSERT_TRUE(again);
    EXPECT_EQ(*again, *found) << seed;
  }
}

// A truncation that was refused left the new sum with the old bytes: the value answered EIO.
TEST(Regression, P0_ARefusedTruncationChangesNothing) {
  for (const size_t size : {4 * kChunk - 5000, 4 * kChunk + 5000}) {
    Volume volume;
    volume.put_large("f", 4 * kChunk - 1000);
    volume.disk.set_fault([](const storage::Operation& operation) {
      return operation.kind == storage::OperationKind::kCompletion ? EIO : 0;
    });
    ASSERT_TRUE(create(*volume.store, "g"));
    ASSERT_FALSE(volume.store->sync());  // the log takes no more
    volume.disk.set_fault({});
    ASSERT_FALSE(truncate(*volume.store, "f", size));
    EXPECT_TRUE(get(*volume.store, "f"));
  }
}

// The log had failed, but bytes in bin/ were changed in place all the same: what had been fsynced
// was gone after power loss.
TEST(Regression, P2_AFailedLogProtectsLargeValues) {
  Volume volume;
  volume.put_large("f", 4 * kChunk);
  for (int i = 0; i < 3; i++) volume.tick();
  const auto before = get(*volume.store, "f");
  ASSERT_TRUE(before);
  volume.disk.set_fault([](const storage::Operation& operation) {
    return operation.kind == storage::OperationKind::kCompletion ? EIO : 0;
  });
  ASSERT_FALSE(truncate(*volume.store, "f", kChunk));
  volume.disk.set_fault({});
  EXPECT_FALSE(punch(*volume.store, "f", 1000, kChunk));
  EXPECT_FALSE(write(*volume.store, "f", 5000, pattern(1, 100)));
  EXPECT_FALSE(truncate(*volume.store, "f", 2 * kChunk));
  EXPECT_FALSE(volume.store->sync());
  for (uint64_t seed = 1; seed <= 8; seed++) {
    const auto disk = volume.disk.clone_after_power_loss(seed);
    const auto after = get(*must_open(*disk, volume.options), "f");
    ASSERT_TRUE(after) << after.error().what;
    // The truncation itself may be found, or not.
    const size_t size = after->size();
    ASSERT_TRUE(size == kChunk || size == 4 * kChunk) << size;
    EXPECT_TRUE(same_bytes(*after, std::span(*before).first(size))) << seed;
  }
}

// An acknowledged group in a block that could not be read, be it for once, was taken for the end of
// the log: the mount cut it off for good.
TEST(Regression, P2_WhatCannotBeReadIsNotTheEndOfTheLog) {
  Volume volume;
  ASSERT_TRUE(put(*volume.store, "f", pattern(1, 3000)));
  ASSERT_TRUE(volume.store->sync());
  ASSERT_TRUE(put(*volume.store, "g", pattern(2, 3000)));
  ASSERT_TRUE(volume.store->sync());
  volume.store.reset();
  volume.disk.restart(storage::CrashKind::kPowerLoss);
  for (uint64_t block = 1; block < 8; block++) {
    const auto disk = volume.disk.clone_after_power_loss(1);
    disk->set_fault([block](const storage::Operation& operation) {
      const bool hit = operation.kind == storage::OperationKind::kRead &&
                       operation.path == "wal/00/00/00000001" &&
                       operation.offset / storage::kBlockSize <= block &&
                       (operation.offset + operation.length - 1) / storage::kBlockSize >= block;
      return hit ? EIO : 0;
    });
    if (auto opened = open_store(*disk, volume.options)) {
      // A later group has proved that this was not the end.
      EXPECT_GT((*opened)->stats().damaged_groups, 0u) << block;
      continue;
    } else {
      EXPECT_EQ(opened.error().code, EIO);
    }
    disk->set_fault({});
    disk->restart(storage::CrashKind::kPowerLoss);
    const auto store = must_open(*disk, volume.options);
    EXPECT_EQ(*get(*store, "f"), pattern(1, 3000));
    EXPECT_EQ(*get(*store, "g"), pattern(2, 3000));
  }
}

}  // namespace
}  // namespace valfs::test
