// The features of the seed, row by row, as far as no other test is about them: the table in
// engine/README.md says which is where.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "engine/key_value.h"
#include "engine/log/format.h"
#include "tests/support/sim_store.h"

namespace valfs::test {
namespace {

using storage::CrashKind;
using storage::SimDisk;

struct Volume {
  explicit Volume(const std::function<void(StoreOptions&)>& change = [](StoreOptions&) {}) {
    change(options);
    open();
  }
  void open() {
    values.reset();
    store = must_open(disk, options);
    values = std::make_unique<KeyValue>(*store);
  }
  void crash(CrashKind kind) {
    values.reset();
    store.reset();
    disk.restart(kind);
    open();
  }
  void erase(const std::string& begin) {
    for (const std::string& path : disk.files()) {
      if (path.starts_with(begin)) {
        ASSERT_TRUE(disk.erase(path));
      }
    }
  }
  // Power loss, and no checkpoint to start from.
  void crash_without_checkpoint() {
    values.reset();
    store.reset();
    disk.restart(CrashKind::kPowerLoss);
    erase("checkpoint/");
    open();
  }
  std::vector<std::string> files(const std::string& begin) const {
    std::vector<std::string> found;
    for (const std::string& path : disk.files()) {
      if (path.starts_with(begin)) found.push_back(path);
    }
    return found;
  }
  void put(const std::string& key, uint64_t seed, size_t size) {
    const auto put = values->put(key, pattern(seed, size));
    ASSERT_TRUE(put) << put.error().what;
  }
  bool has(const std::string& key, uint64_t seed, size_t size) {
    const auto value = values->get(key);
    return value && *value == pattern(seed, size);
  }

  FakeClock clock;
  StoreOptions options = small_options(clock);
  SimDisk disk{{.seed = 17, .capacity = 1 << 30}};
  std::unique_ptr<Store> store;
  std::unique_ptr<KeyValue> values;
};

TEST(Feature, F5_SyncCoversRotatedFilesAndBlobs) {
  for (uint64_t seed = 1; seed <= 10; seed++) {
    Volume volume;
    for (int i = 0; i < 60; i++) volume.put("k" + std::to_string(i), seed + i, 20'000);
    volume.put("large", seed, 200'000);
    EXPECT_GT(volume.store->stats().log_files, 3u);
    ASSERT_TRUE(volume.values->sync());
    const auto left = volume.disk.clone_after_power_loss(seed);
    const auto store = must_open(*left, volume.options);
    KeyValue values(*store);
    for (int i = 0; i < 60; i++) {
      ASSERT_EQ(*values.get("k" + std::to_string(i)), pattern(seed + i, 20'000));
    }
    ASSERT_EQ(*values.get("large"), pattern(seed, 200'000));
  }
}

// Every group on the disk.
std::vector<log::GroupHeader> groups_on(const Volume& volume) {
  std::vector<log::GroupHeader> groups;
  for (const std::string& path : volume.files("wal/")) {
    const auto bytes = *volume.disk.contents(path);
    for (uint64_t at = log::kBlock; at + log::kBlock <= bytes.size(); at += log::kBlock) {
      log::GroupHeader header;
      std::memcpy(&header, bytes.data() + at, sizeof header);
      if (header.magic == log::GroupHeader::kMagic) groups.push_back(header);
    }
  }
  return groups;
}

TEST(Feature, F6_AGroupHasAtMostSoManyRecords) {
  for (const uint32_t most : {8U, 100U}) {
    Volume volume([&](StoreOptions& options) { options.group_records = most; });
    for (int i = 0; i < 200; i++) volume.put("k" + std::to_string(i), 1, 10);
    ASSERT_TRUE(volume.values->sync());
    uint32_t largest = 0;
    for (const auto& group : groups_on(volume)) largest = std::max(largest, group.record_count);
    EXPECT_LE(largest, most);
    EXPECT_GE(largest, most / 2);
  }
}

TEST(Feature, F7_WhatWaitsIsBounded) {
  Volume volume;
  size_t most = 0;
  for (int i = 0; i < 400; i++) {
    volume.put("k" + std::to_string(i), i, 5000);
    most = std::max(most, volume.disk.in_flight());
  }
  EXPECT_GT(most, 1u);  // F2: several writes under way
  EXPECT_LE(most, volume.options.slots);
  const StoreStats stats = volume.store->stats();
  EXPECT_LE(stats.appended_group - stats.durable_group, volume.options.slots);
}

TEST(Feature, F9_F10_FourMebibytesAreTheLimit) {
  Volume volume([](StoreOptions& options) {
    const StoreOptions usual;
    options.log_file_size = 16 * kMiB;
    options.slot_size = usual.slot_size;
    options.blob_threshold = usual.blob_threshold;
  });
  volume.put("log", 1, 4'194'304);
  ASSERT_TRUE(volume.values->sync());
  EXPECT_EQ(volume.files("bin/").size(), 0u);
  volume.put("bin", 2, 4'194'305);
  ASSERT_TRUE(volume.values->sync());
  EXPECT_EQ(volume.files("bin/").size(), 1u);
  volume.crash(CrashKind::kPowerLoss);
  EXPECT_TRUE(volume.has("log", 1, 4'194'304));
  EXPECT_TRUE(volume.has("bin", 2, 4'194'305));
}

TEST(Feature, F13_ATombstoneIsSmallAndLasts) {
  Volume volume;
  volume.put("k", 1, 20'000);
  ASSERT_TRUE(volume.values->sync());
  const auto used = [&] {
    const StoreStats stats = volume.store->stats();
    return stats.live_bytes + stats.dead_bytes;
  };
  const uint64_t before = used();
  ASSERT_TRUE(volume.values->remove("k"));
  ASSERT_TRUE(volume.values->sync());
  EXPECT_LE(used() - before, 2 * log::kBlock);
  volume.crash_without_checkpoint();
  EXPECT_FALSE(volume.values->contains("k"));
}

TEST(Feature, F14_RotationAtAppend) {
  Volume volume;
  for (int i = 0; i < 200; i++) volume.put("k" + std::to_string(i), i, 1000 + i * 100);  // no sync
  EXPECT_GT(volume.store->stats().log_files, 5u);
  for (const std::string& path : volume.files("wal/")) {
    EXPECT_LE(volume.disk.contents(path)->size(), volume.options.log_file_size) << path;
  }
}

TEST(Feature, F16_F27_ADamagedHeaderOfALogFileCostsNothing) {
  for (uint64_t bit : {0, 70, 200, 400}) {
    Volume volume;
    for (int i = 0; i < 5; i++) volume.put("k" + std::to_string(i), i, 3000);
    ASSERT_TRUE(volume.values->sync());
    const auto first = groups_on(volume).front();
    volume.values.reset();
    volume.store.reset();
    volume.disk.restart(CrashKind::kPowerLoss);
    volume.erase("checkpoint/");
    ASSERT_TRUE(volume.disk.flip_bit(log::log_file_path(first.file), bit));
    volume.open();
    for (int i = 0; i < 5; i++) EXPECT_TRUE(volume.has("k" + std::to_string(i), i, 3000)) << bit;
    volume.crash_without_checkpoint();
    for (int i = 0; i < 5; i++) EXPECT_TRUE(volume.has("k" + std::to_string(i), i, 3000)) << bit;
  }
}

TEST(Feature, F21_ReadsFromSlotThenCacheThenLog) {
  Volume volume;
  uint64_t reads = 0;
  volume.disk.set_fault([&](const storage::Operation& operation) {
    const bool log = operation.path.starts_with("wal/");
    if (log && operation.kind == storage::OperationKind::kRead) reads++;
    return 0;
  });
  volume.put("k", 1, 3000);
  EXPECT_TRUE(volume.has("k", 1, 3000));
  EXPECT_EQ(reads, 0u);  // from its slot
  ASSERT_TRUE(volume.values->sync());
  EXPECT_TRUE(volume.has("k", 1, 3000));
  EXPECT_EQ(reads, 0u);  // from the cache, which the first read has filled
  volume.store->drop_caches();
  for (int i = 0; i < 30; i++)
    volume.put("other" + std::to_string(i), 2, 20'000);  // takes the slot
  reads = 0;
  EXPECT_TRUE(volume.has("k", 1, 3000));
  EXPECT_GT(reads, 0u);  // from the log,
  reads = 0;
  EXPECT_TRUE(volume.has("k", 1, 3000));
  EXPECT_EQ(reads, 0u);  // and into the cache again
}

TEST(Feature, F24_APositionIsLittleEndian) {
  const auto position = log::Position::at(0x01020304, uint64_t{0x0a0b0c0d} * 8);
  const uint8_t expected[] = {0x0d, 0x0c, 0x0b, 0x0a, 0x04, 0x03, 0x02, 0x01};
  EXPECT_EQ(std::memcmp(&position, expected, sizeof expected), 0);
  EXPECT_EQ(position.file(), 0x01020304u);
  EXPECT_EQ(position.offset(), uint64_t{0x0a0b0c0d} * 8);
}

// W2: the sizes that the seed's two scans lost, and larger ones; nothing may overwrite them either.
TEST(Feature, F28_W2_ScanFindsAnySizeAtAnyStraddle) {
  struct Mix {
    size_t least, most, count;
  };
  for (const Mix mix :
       {Mix{10, 300, 1500}, Mix{200, 2000, 500}, Mix{5000, 5000, 400}, Mix{1000, 9000, 500},
        Mix{16'000, 16'000, 100}, Mix{4095, 4097, 200}, Mix{30'000, 32'768, 100}}) {
    Volume volume;
    std::mt19937_64 random(mix.count);
    std::vector<size_t> sizes;
    for (size_t i = 0; i < mix.count; i++) {
      sizes.push_back(mix.least + random() % (mix.most - mix.least + 1));
      volume.put("k" + std::to_string(i), i, sizes.back());
    }
    ASSERT_TRUE(volume.values->sync());
    for (int round = 0; round < 2; round++) {
      volume.crash_without_checkpoint();
      EXPECT_FALSE(volume.store->stats().used_checkpoint);
      ASSERT_EQ(volume.values->count(), mix.count + round);
      for (size_t i = 0; i < mix.count; i++) {
        ASSERT_TRUE(volume.has("k" + std::to_string(i), i, sizes[i])) << sizes[i] << " bytes";
      }
      volume.put("after " + std::to_string(round), 1, 5000);
      ASSERT_TRUE(volume.values->sync());
    }
  }
}

// A copy of a log file in a value, in the midst of the log. Three things keep it out: groups are
// walked, not searched for; salted CRCs; and sequences, which rise.
TEST(Feature, F30_ALogInsideAValueIsNotReplayed) {
  Volume volume([](StoreOptions& options) {
    options.slot_size = 512 * kKiB;
    options.log_file_size = kMiB;
    options.blob_threshold = 400 * kKiB;
  });
  volume.put("ghost", 1, 3000);
  ASSERT_TRUE(volume.values->sync());
  const auto group = groups_on(volume).back();
  auto image = *volume.disk.contents(log::log_file_path(group.file));
  image.resize(300 * 1024);
  ASSERT_TRUE(volume.values->remove("ghost"));
  // At every phase, so that one copy begins at a block of the log file.
  for (int i = 0; i < 3; i++) {
    ASSERT_TRUE(volume.values->put("image" + std::to_string(i), image));
    image.insert(image.begin(), 1368, std::byte{0});
  }
  ASSERT_TRUE(volume.values->sync());
  volume.crash_without_checkpoint();
  EXPECT_FALSE(volume.values->contains("ghost"));
  EXPECT_EQ(volume.values->count(), 3u);
}

TEST(Feature, F32_F33_OneOfManyVersionsIsLive) {
  Volume volume;
  for (int i = 0; i < 300; i++) volume.put("k", i, 3000);
  volume.put("other", 1, 3000);
  const auto progress = volume.values->gc();
  ASSERT_TRUE(progress) << progress.error().what;
  EXPECT_LE(volume.store->stats().dead_bytes, 64 * kKiB);
  EXPECT_TRUE(volume.has("k", 299, 3000));
  volume.crash_without_checkpoint();
  EXPECT_TRUE(volume.has("k", 299, 3000));
  EXPECT_TRUE(volume.has("other", 1, 3000));
  EXPECT_EQ(check_index(*volume.store), "");
}

TEST(Feature, F34_F35_F39_WhoHasNoLockTouchesNothing) {
  Volume volume;
  volume.put("k", 1, 3000);
  ASSERT_TRUE(volume.store->sync());
  ASSERT_TRUE(volume.disk.make_directory("gc"));
  ASSERT_TRUE(volume.disk.open("gc/left", storage::OpenMode::kCreate));
  const auto before = volume.disk.operations();
  EXPECT_EQ(open_store(volume.disk, volume.options).error().code, EBUSY);
  EXPECT_EQ(volume.disk.operations(), before);
}

TEST(Feature, F36_TheFileBeingWrittenIsInReach) {
  Volume volume;
  for (int i = 0; i < 40; i++) volume.put("k", i, 3000);
  ASSERT_TRUE(volume.values->sync());
  // 120 kB in the first file of 256 KiB, which nothing has filled: all but 3 kB of them go.
  const uint64_t before = volume.store->stats().cleaned_bytes;
  const auto progress = volume.values->gc();
  ASSERT_TRUE(progress) << progress.error().what;
  EXPECT_GE(before + progress->bytes_reclaimed, 80'000u);
  EXPECT_LE(volume.store->stats().dead_bytes, 32 * kKiB);
  EXPECT_TRUE(volume.has("k", 39, 3000));
}

TEST(Feature, F37_OrphansInBinAreSwept) {
  Volume volume;
  volume.put("large", 1, 100'000);
  ASSERT_TRUE(volume.values->sync());
  ASSERT_EQ(volume.files("bin/").size(), 1u);
  ASSERT_TRUE(volume.disk.make_directory("bin/ab"));
  ASSERT_TRUE(volume.disk.make_directory("bin/ab/cd"));
  ASSERT_TRUE(volume.disk.open("bin/ab/cd/000000000000abcd", storage::OpenMode::kCreate));
  volume.crash(CrashKind::kProcessKill);
  EXPECT_EQ(volume.files("bin/").size(), 1u);
  EXPECT_TRUE(volume.has("large", 1, 100'000));
}

TEST(Feature, F40_FilesLieInTwoLevels) {
  Volume volume;
  volume.put("large", 1, 100'000);
  ASSERT_TRUE(volume.values->sync());
  ASSERT_TRUE(volume.values->checkpoint());
  EXPECT_EQ(log::log_file_path(0x01234567), "wal/23/45/01234567");
  for (const std::string& path : volume.files("wal/")) {
    ASSERT_EQ(path.size(), std::strlen("wal/00/00/00000001"));
    EXPECT_EQ(path.substr(4, 2) + path.substr(7, 2), path.substr(12, 4)) << path;
  }
  for (const std::string& path : volume.files("bin/")) {
    ASSERT_EQ(path.size(), std::strlen("bin/00/00/0000000000000001"));
    EXPECT_EQ(path.substr(4, 2) + path.substr(7, 2), path.substr(22, 4)) << path;
  }
  EXPECT_EQ(volume.files("checkpoint/").size(), 1u);
}

}  // namespace
}  // namespace valfs::test
