// Promises of the store that need no crash to be seen, or a certain one.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/tree_model.h"

namespace valfs::test {
namespace {

using std::chrono::milliseconds;
using storage::CrashKind;
using storage::Operation;
using storage::OperationKind;
using storage::SimDisk;

void finish_writes(SimDisk& disk) {
  while (disk.step()) {
  }
}

bool is_blob(const Store& store, const std::string& path) {
  return attributes_of(store, look_up(store, path)).blob != 0;
}

// What a value would be after power loss now; nothing if it would not be there.
std::optional<Bytes> after_power_loss(const SimDisk& disk, const std::string& path, uint64_t seed) {
  const auto left = disk.clone_after_power_loss(seed);
  auto store = must_open(*left, small_options());
  const auto bytes = get(*store, path);
  if (!bytes) return std::nullopt;
  return *bytes;
}

TEST(Store, NeedsAVolumeOrLeaveToMakeOne) {
  SimDisk disk({});
  auto options = small_options();
  options.create = false;
  EXPECT_EQ(open_store(disk, options).error().code, ENOENT);
  ASSERT_TRUE(disk.open("stranger", storage::OpenMode::kCreate));
  options.create = true;
  EXPECT_EQ(open_store(disk, options).error().code, ENOTEMPTY);
  ASSERT_TRUE(disk.remove("stranger"));
  auto store = must_open(disk, options);
  EXPECT_EQ(open_store(disk, options).error().code, EBUSY);
}

TEST(Store, P1KilledWithoutAnySyncNothingIsLost) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(put(*store, "a", pattern(1, 5000)));
  const auto left = disk.clone_after_process_kill(1);
  auto again = must_open(*left, small_options());
  EXPECT_EQ(again->stats().drained_groups, 1u);
  EXPECT_EQ(*get(*again, "a"), pattern(1, 5000));
}

TEST(Store, MissingStagingSlotsAreSaidAloud) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(put(*store, "a", pattern(1, 5000)));
  ASSERT_TRUE(disk.remove_staging("staging-" + store->stats().volume));
  store.reset();
  disk.restart(CrashKind::kProcessKill);
  store = must_open(disk, small_options());
  ASSERT_FALSE(store->recovery_warnings().empty());
  EXPECT_NE(store->recovery_warnings()[0].find("staging"), std::string::npos);
}

TEST(Store, P4CommitsByItselfInTime) {
  SimDisk disk({});
  FakeClock clock;
  auto store = must_open(disk, small_options(clock));
  ASSERT_TRUE(store->sync());
  ASSERT_TRUE(put(*store, "a", pattern(1, 500)));
  clock.advance(milliseconds(20));
  store->tick();
  finish_writes(disk);
  EXPECT_FALSE(after_power_loss(disk, "a", 1));
  EXPECT_GE(store->stats().undurable_ms, 20);
  clock.advance(milliseconds(70));
  store->tick();
  finish_writes(disk);
  EXPECT_EQ(after_power_loss(disk, "a", 1), pattern(1, 500));
  EXPECT_EQ(store->stats().undurable_ms, 0);
}

TEST(Store, P4BytesOfLargeValuesFollow) {
  SimDisk disk({});
  FakeClock clock;
  auto store = must_open(disk, small_options(clock));
  const Bytes bytes = pattern(1, 90'000);
  ASSERT_TRUE(put(*store, "a", bytes));
  ASSERT_TRUE(is_blob(*store, "a"));
  clock.advance(milliseconds(5001));
  store->tick();
  clock.advance(milliseconds(100));
  store->tick();
  finish_writes(disk);
  for (uint64_t seed = 0; seed < 10; seed++) EXPECT_EQ(after_power_loss(disk, "a", seed), bytes);
}

// No timed commit between truncation and the write that follows it.
TEST(Store, P5OverwritingGivesTheOldOrTheNew) {
  SimDisk disk({});
  FakeClock clock;
  auto store = must_open(disk, small_options(clock));
  ASSERT_TRUE(put(*store, "a", pattern(1, 500)));
  ASSERT_TRUE(store->sync());
  ASSERT_TRUE(create(*store, "other"));
  clock.advance(milliseconds(60));  // a commit is due soon
  ASSERT_TRUE(truncate(*store, "a", 0));
  for (int i = 0; i < 6; i++) {
    clock.advance(milliseconds(3));
    store->tick();
    finish_writes(disk);
    EXPECT_EQ(after_power_loss(disk, "a", 1), pattern(1, 500)) << i;
  }
  ASSERT_TRUE(write(*store, "a", 0, pattern(2, 700)));
  store->tick();
  finish_writes(disk);
  EXPECT_EQ(after_power_loss(disk, "a", 1), pattern(2, 700));
  // Nobody writes: after 20 ms the truncation counts for itself.
  ASSERT_TRUE(truncate(*store, "a", 0));
  for (int i = 0; i < 12; i++) {
    clock.advance(milliseconds(10));
    store->tick();
    finish_writes(disk);
  }
  EXPECT_EQ(after_power_loss(disk, "a", 1), Bytes());
}

TEST(Store, P8AFailedCommitSticks) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(put(*store, "a", pattern(1, 500)));
  ASSERT_TRUE(store->sync());
  disk.set_fault([](const Operation& operation) {
    return operation.kind == OperationKind::kCompletion ? EIO : 0;
  });
  ASSERT_TRUE(put(*store, "b", pattern(2, 500)));
  EXPECT_EQ(store->sync().error().code, EIO);
  disk.set_fault({});
  EXPECT_EQ(store->sync().error().code, EIO);
  EXPECT_EQ(sync(*store, "a").error().code, EIO);
  EXPECT_EQ(put(*store, "c", pattern(3, 5)).error().code, EIO);
  EXPECT_EQ(write(*store, "a", 0, pattern(3, 5)).error().code, EIO);
  EXPECT_FALSE(store->stats().failure.empty());
  EXPECT_EQ(*get(*store, "b"), pattern(2, 500));  // still readable
  EXPECT_FALSE(store->close());
  store.reset();
  disk.restart(CrashKind::kProcessKill);
  store = must_open(disk, small_options());  // and in its slot for the next mount
  EXPECT_EQ(*get(*store, "a"), pattern(1, 500));
  EXPECT_EQ(*get(*store, "b"), pattern(2, 500));
}

TEST(Store, P8AFailedFlushOfALargeValueSticks) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(put(*store, "a", pattern(1, 90'000)));
  ASSERT_TRUE(store->sync());
  ASSERT_TRUE(append(*store, "a", pattern(2, 1000)));
  disk.set_fault([](const Operation& operation) {
    return operation.kind == OperationKind::kSync && operation.path.rfind("bin/", 0) == 0 ? EIO : 0;
  });
  EXPECT_EQ(sync(*store, "a").error().code, EIO);
  disk.set_fault({});
  EXPECT_EQ(sync(*store, "a").error().code, EIO);
  EXPECT_EQ(store->sync().error().code, EIO);
  EXPECT_EQ(append(*store, "a", pattern(2, 10)).error().code, EIO);
  ASSERT_TRUE(put(*store, "b", pattern(3, 10)));
  EXPECT_TRUE(sync(*store, "b"));  // not its concern
}

// --- P10 ---

TEST(Store, P10AFullVolumeCanBeEmptiedAndFilledAgain) {
  for (const uint64_t capacity : {6 * kMiB, 10 * kMiB}) {
    SimDisk disk({.seed = 1, .capacity = capacity});
    FakeClock clock;
    auto store = must_open(disk, small_options(clock));
    size_t first_count = 0;
    for (int round = 0; round < 4; round++) {
      SCOPED_TRACE("round " + std::to_string(round) + " of " + std::to_string(capacity));
      size_t count = 0;
      Status filled;
      while (filled && count < 5000) {
        filled = put(*store, "f" + std::to_string(count), pattern(count, 8000));
        if (filled) count++;
      }
      ASSERT_FALSE(filled);
      EXPECT_EQ(filled.error().code, ENOSPC) << filled.error().what;
      EXPECT_TRUE(store->sync()) << "what was accepted can be made durable";
      if (round == 0) first_count = count;
      EXPECT_GE(count * 10, first_count * 7) << "space is lost for good";
      if (round == 2) {  // a full volume can be mounted
        ASSERT_TRUE(store->close());
        store.reset();
        store = must_open(disk, small_options(clock));
      }
      for (size_t i = 0; i < count; i++) {
        ASSERT_EQ(*get(*store, "f" + std::to_string(i)), pattern(i, 8000));
      }
      const auto half = remove(*store, "f" + std::to_string(count));  // it was created, at least
      EXPECT_TRUE(half || half.error().code == ENOENT) << half.error().what;
      for (size_t i = 0; i < count; i++) {
        const auto removed = remove(*store, "f" + std::to_string(i));
        ASSERT_TRUE(removed) << i << ": " << removed.error().what;
      }
      const auto collected = store->gc();
      ASSERT_TRUE(collected) << collected.error().what;
      EXPECT_EQ(check_index(*store), "");
    }
  }
}

TEST(Store, P10OverwritingAFullVolumeGoesOn) {
  SimDisk disk({.seed = 1, .capacity = 6 * kMiB});
  auto store = must_open(disk, small_options());
  for (int i = 0; i < 100; i++) {
    ASSERT_TRUE(put(*store, "f" + std::to_string(i), pattern(1, 10'000)));
  }
  for (int round = 0; round < 3000; round++) {  // 30 MiB through 6
    const auto written = put(*store, "f" + std::to_string(round % 100),
                             pattern(static_cast<uint64_t>(round), 10'000));
    ASSERT_TRUE(written) << round << ": " << written.error().what;
  }
  for (int i = 0; i < 100; i++) {
    EXPECT_EQ(*get(*store, "f" + std::to_string(i)),
              pattern(static_cast<uint64_t>(2900 + i), 10'000));
  }
}

// --- values ---

TEST(Store, ScatteredValuesAreFolded) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  Bytes model = pattern(1, 20'000);
  ASSERT_TRUE(put(*store, "a", model));
  std::mt19937_64 random(1);
  size_t most = 0;
  for (uint64_t i = 0; i < 400; i++) {
    const uint64_t offset = random() % 19'000;
    const Bytes piece = pattern(i, 1 + random() % 1000);
    ASSERT_TRUE(write(*store, "a", offset, piece));
    model.resize(std::max(model.size(), offset + piece.size()));
    std::copy(piece.begin(), piece.end(), model.begin() + static_cast<ptrdiff_t>(offset));
    ASSERT_EQ(*get(*store, "a"), model);
    store->read_index([&](const index::Index& index) {
      most = std::max(most, index.find(look_up(*store, "a"))->extents().all().size());
    });
  }
  EXPECT_LT(most, 100u);
  EXPECT_EQ(check_index(*store), "");
}

TEST(Store, TheLimitOfTheLogIsExact) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  const uint64_t limit = small_options().blob_threshold;
  ASSERT_TRUE(put(*store, "a", pattern(1, limit)));
  EXPECT_FALSE(is_blob(*store, "a"));
  ASSERT_TRUE(append(*store, "a", pattern(2, 1)));
  EXPECT_TRUE(is_blob(*store, "a"));
  ASSERT_TRUE(create(*store, "holes"));
  ASSERT_TRUE(write(*store, "holes", uint64_t{1} << 40, pattern(3, 100)));
  EXPECT_FALSE(is_blob(*store, "holes"));  // holes do not count
  // Back to the log, at leisure, when it has shrunk.
  ASSERT_TRUE(truncate(*store, "a", 1000));
  ASSERT_TRUE(store->gc());
  EXPECT_FALSE(is_blob(*store, "a"));
  const Bytes whole = pattern(1, limit);
  EXPECT_EQ(*get(*store, "a"), Bytes(whole.begin(), whole.begin() + 1000));
  ASSERT_TRUE(store->close());
  for (const auto& path : disk.files()) EXPECT_NE(path.rfind("bin/", 0), 0u) << path;
}

TEST(Store, ABlobIsDurableBeforeTheRecordThatNamesIt) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  std::vector<std::string> order;
  disk.set_fault([&](const Operation& operation) {
    if (operation.path.rfind("bin", 0) == 0 && operation.kind != OperationKind::kRead) {
      order.push_back("bin");
      if (operation.kind == OperationKind::kSync) order.push_back("bin synced");
      if (operation.kind == OperationKind::kSyncDirectory) order.push_back("name synced");
    }
    if (operation.kind == OperationKind::kWriteDurably) order.push_back("log");
    return 0;
  });
  ASSERT_TRUE(create(*store, "a"));
  ASSERT_TRUE(write(*store, "a", 0, pattern(1, 30'000)));
  ASSERT_TRUE(write(*store, "a", 30'000, pattern(1, 30'000)));
  ASSERT_TRUE(store->sync());
  const auto synced = std::find(order.begin(), order.end(), "bin synced");
  const auto named = std::find(order.begin(), order.end(), "name synced");
  const auto log = std::find(order.begin(), order.end(), "log");
  EXPECT_LT(synced, log);
  EXPECT_LT(named, log);
}

TEST(Store, OverwritingABlobMarksItsChunkFirst) {
  SimDisk disk({});
  FakeClock clock;
  auto store = must_open(disk, small_options(clock));
  Bytes model = pattern(1, 200'000);
  ASSERT_TRUE(put(*store, "a", model));
  ASSERT_TRUE(store->sync());
  bool marked = false;
  disk.set_fault([&](const Operation& operation) {
    marked |= operation.kind == OperationKind::kCompletion;
    if (operation.kind == OperationKind::kWrite && operation.path.rfind("bin/", 0) == 0) {
      EXPECT_TRUE(marked);
    }
    return 0;
  });
  const Bytes piece = pattern(2, 5000);
  ASSERT_TRUE(write(*store, "a", 70'000, piece));
  disk.set_fault({});
  std::copy(piece.begin(), piece.end(), model.begin() + 70'000);
  EXPECT_EQ(*get(*store, "a"), model);
  // After a flush, and some quiet, it is summed again: damage shows.
  ASSERT_TRUE(store->sync());
  clock.advance(milliseconds(3000));
  store->tick();
  clock.advance(milliseconds(3000));
  store->tick();
  ASSERT_TRUE(store->sync());
  for (const auto& path : disk.files()) {
    if (path.rfind("bin/", 0) != 0) continue;
    ASSERT_TRUE(disk.flip_bit(path, 71'000 * 8));
  }
  EXPECT_EQ(get(*store, "a").error().code, EIO);
  Bytes start(1000);
  EXPECT_TRUE(store->read(look_up(*store, "a"), 0, start));  // other chunks are well
  // What stays of a damaged chunk must not pass for good because a part of it was overwritten.
  EXPECT_EQ(write(*store, "a", 80'000, piece).error().code, EIO);
}

TEST(Store, HoldsKeepAnInodeWithoutNames) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(put(*store, "a", pattern(1, 100)));
  const auto inode = look_up(*store, "a");
  store->read_index([&](const index::Index& index) { Store::hold(*index.find(inode)); });
  {
    auto transaction = store->begin(Transaction::Size::of(2, 0, 0));
    ASSERT_TRUE(transaction);
    transaction->remove_name(*transaction->index().find(index::kRoot, "a"));
    auto attributes = transaction->index().find(inode)->attributes;
    attributes.links = 0;
    transaction->put(inode, attributes);
    transaction->commit(kNow);
  }
  Bytes bytes(100);
  EXPECT_EQ(*store->read(inode, 0, bytes), 100u);
  EXPECT_EQ(bytes, pattern(1, 100));
  store->release(inode, 1);
  EXPECT_EQ(store->read(inode, 0, bytes).error().code, ENOENT);
  EXPECT_EQ(check_index(*store), "");
}

// A value is cached as it is written, but only where the write is all of it.
TEST(Store, P0_WhatWasJustWrittenIsReadFromMemory) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  const auto expect_read = [&](const Bytes& expected, bool from_memory) {
    const uint64_t hits = store->stats().cache.hits;
    EXPECT_TRUE(same_bytes(*get(*store, "a"), expected));
    EXPECT_EQ(store->stats().cache.hits > hits, from_memory);
  };
  Bytes bytes = pattern(1, 10'000);
  ASSERT_TRUE(put(*store, "a", bytes));
  expect_read(bytes, true);
  const Bytes piece = pattern(2, 100);
  ASSERT_TRUE(write(*store, "a", 0, piece));
  std::copy(piece.begin(), piece.end(), bytes.begin());
  expect_read(bytes, false);
  ASSERT_TRUE(truncate(*store, "a", 50));
  bytes.resize(50);
  expect_read(bytes, false);
  ASSERT_TRUE(append(*store, "a", piece));
  bytes.insert(bytes.end(), piece.begin(), piece.end());
  expect_read(bytes, false);
  ASSERT_TRUE(put(*store, "a", piece));
  expect_read(piece, true);
}

// Found by power_cut_test, VALFS_SEED=300003607: a value went to bin/ for the zeros of its hole.
TEST(Store, FoldingDoesNotFillHolesBeyondWhatTheLogTakes) {
  SimDisk disk({});
  const auto options = small_options();
  auto store = must_open(disk, options);
  Bytes expected = pattern(1, 28'000);
  ASSERT_TRUE(put(*store, "a", expected));
  ASSERT_TRUE(truncate(*store, "a", 39'000));
  expected.resize(39'000);
  for (uint64_t i = 0; i < 100; i++) {
    const Bytes piece = pattern(i, 2'000);
    const size_t at = i % 13 * 2'000;
    ASSERT_TRUE(write(*store, "a", at, piece));
    std::copy(piece.begin(), piece.end(), expected.begin() + static_cast<ptrdiff_t>(at));
  }
  const auto attributes = attributes_of(*store, look_up(*store, "a"));
  EXPECT_EQ(attributes.blob, 0u);
  EXPECT_LT(attributes.size, 2 * options.blob_threshold);
  EXPECT_TRUE(same_bytes(*get(*store, "a"), expected));
}

TEST(Store, ATransactionThatIsDroppedChangesNothing) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  {
    auto transaction = store->begin(Transaction::Size::of(2, 10, 0));
    ASSERT_TRUE(transaction);
    transaction->add_name(index::kRoot, "ghost", 99);
  }
  EXPECT_EQ(look_up(*store, "ghost"), 0u);
  ASSERT_TRUE(put(*store, "a", pattern(1, 10)));
  EXPECT_TRUE(store->sync());
}

// It would only be in the way of what can be read.
TEST(Store, WhatIsRemovedLeavesTheCache) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(put(*store, "a", pattern(1, 5000)));
  ASSERT_TRUE(put(*store, "b", pattern(2, 100)));
  ASSERT_EQ(store->stats().cache.entries, 2u);
  ASSERT_TRUE(remove(*store, "a"));
  EXPECT_EQ(store->stats().cache.entries, 1u);
  ASSERT_TRUE(remove(*store, "b"));
  EXPECT_EQ(store->stats().cache.entries, 0u);
}

}  // namespace
}  // namespace valfs::test
