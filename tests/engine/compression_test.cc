// F38: what the cleaner compresses, and that nobody who reads or changes a value notices.
#include "engine/log/compression.h"

#include <gtest/gtest.h>

#include <random>

#include "engine/log/superblock.h"
#include "tests/support/compressed.h"

namespace valfs::test {
namespace {

using storage::CrashKind;
using storage::Operation;
using storage::OperationKind;
using storage::SimDisk;

void erase_checkpoints(SimDisk& disk) {
  for (const std::string& path : disk.files()) {
    if (path.rfind("checkpoint/", 0) != 0) continue;
    ASSERT_TRUE(disk.erase(path));
  }
}

// The last block of each log file, so that no footer is whole.
void spoil_footers(SimDisk& disk) {
  for (const std::string& path : disk.files()) {
    if (path.rfind("wal/", 0) != 0) continue;
    const uint64_t size = disk.contents(path)->size();
    ASSERT_TRUE(disk.corrupt(path, size - log::kBlock, Bytes(log::kBlock)));
  }
}

class Compressing : public ::testing::TestWithParam<Compression> {
 protected:
  StoreOptions options() const { return compressing_options(GetParam()); }
  StoreOptions large() const { return large_compressing_options(GetParam()); }
  SimDisk disk_{{}};
};

INSTANTIATE_TEST_SUITE_P(Algorithms, Compressing,
                         ::testing::Values(Compression::kLz4, Compression::kZstd),
                         [](const auto& suite) {
                           return suite.param == Compression::kLz4 ? "lz4" : "zstd";
                         });

constexpr uint64_t kSizes[] = {1,     1023,  1024,  16383,  16384,    16385,
                               65535, 65536, 65537, 131072, 1 * kMiB, 4 * kMiB};

// Compressible and incompressible ones of every size.
Values all_sizes() {
  Values values;
  for (const uint64_t size : kSizes) {
    values["text" + std::to_string(size)] = pattern(compressible(size), size);
    values["noise" + std::to_string(size)] = pattern(noise(size), size);
  }
  return values;
}

void put_all(Store& store, const Values& values) {
  for (const auto& [path, bytes] : values) {
    if (look_up(store, path) == 0) {
      ASSERT_TRUE(create(store, path));
    }
    // By one write, as the kernel's largest requests never are: one extent, up to 4 MiB.
    ASSERT_TRUE(write(store, path, 0, bytes));
  }
}

TEST_P(Compressing, F38_ValuesOfAllSizesComeBack) {
  const Values values = all_sizes();
  {
    auto store = must_open(disk_, large());
    put_all(*store, values);
    for (const auto& [path, bytes] : values) EXPECT_EQ(how_stored(*store, path), Stored::kPlain);
    const uint64_t before = store->stats().live_bytes;
    ASSERT_TRUE(clean_all(*store));
    EXPECT_EQ(check_values(*store, values), "");
    for (const auto& [path, bytes] : values) {
      const bool shrinks = path[0] == 't' && bytes.size() >= log::kLeastCompressed;
      EXPECT_EQ(how_stored(*store, path), shrinks ? Stored::kCompressed : Stored::kPlain) << path;
    }
    const StoreStats stats = store->stats();
    EXPECT_GT(stats.compressed_records, 9u);
    EXPECT_LT(stats.compressed_bytes, stats.compressed_raw_bytes / 2);
    EXPECT_LT(stats.live_bytes, before - stats.compressed_raw_bytes / 2);
    // Copied again as they are: nothing to compress is left, and nothing is tried again.
    ASSERT_TRUE(clean_all(*store));
    EXPECT_EQ(store->stats().compressed_records, stats.compressed_records);
    EXPECT_EQ(store->stats().live_bytes, stats.live_bytes);
    EXPECT_EQ(check_values(*store, values), "");
    ASSERT_TRUE(store->close());
  }
  for (const char* from : {"checkpoint", "footers", "scan"}) {
    SCOPED_TRACE(from);
    disk_.restart(CrashKind::kPowerLoss);
    if (from[0] != 'c') erase_checkpoints(disk_);
    if (from[0] == 's') spoil_footers(disk_);
    auto store = must_open(disk_, large());
    EXPECT_EQ(store->stats().used_checkpoint, from[0] == 'c');
    EXPECT_EQ(store->stats().footers_used > 0, from[0] == 'f');
    EXPECT_EQ(check_values(*store, values), "");
    ASSERT_TRUE(store->close());
  }
}

TEST_P(Compressing, F38_ReadsAtTheEdgesOfFrames) {
  auto store = must_open(disk_, large());
  const Values values = all_sizes();
  put_all(*store, values);
  ASSERT_TRUE(clean_all(*store));
  for (const auto& [path, bytes] : values) {
    const log::ObjectId inode = look_up(*store, path);
    for (uint64_t edge = 0; edge <= bytes.size(); edge += log::kFrame) {
      for (const uint64_t before : {0, 1, 100, 5000}) {
        for (const uint64_t length : {1, 2, 4096, 70'000}) {
          const uint64_t from = edge - std::min(before, edge);
          store->drop_caches();
          Bytes read(length);
          const auto got = store->read(inode, from, read);
          ASSERT_TRUE(got) << path << " " << from << ": " << got.error().what;
          ASSERT_EQ(*got, std::min(length, bytes.size() - std::min(from, bytes.size())));
          ASSERT_TRUE(same_bytes(std::span(read).first(*got),
                                 std::span(bytes).subspan(std::min(from, bytes.size()), *got)))
              << path << " " << from;
        }
      }
    }
  }
}

// Design, 7.16: a part of a value costs its frames, not the value.
TEST_P(Compressing, F38_APartOfAValueCostsItsFrames) {
  auto store = must_open(disk_, large());
  put_all(*store, {{"a", pattern(compressible(1), 4 * kMiB)}});
  ASSERT_TRUE(clean_all(*store));
  ASSERT_EQ(how_stored(*store, "a"), Stored::kCompressed);
  const log::ObjectId inode = look_up(*store, "a");
  for (const uint64_t from : {uint64_t{0}, 1 * kMiB, 3 * kMiB + 70'000}) {
    store->drop_caches();
    uint64_t bytes = 0;
    uint64_t reads = 0;
    disk_.set_fault([&](const Operation& operation) {
      if (operation.kind != OperationKind::kRead) return 0;
      bytes += operation.length;
      reads++;
      return 0;
    });
    Bytes read(4096);
    ASSERT_TRUE(store->read(inode, from, read));
    disk_.set_fault({});
    EXPECT_LE(reads, 2u) << from;
    EXPECT_LE(bytes, 2 * log::kFrame) << from;
  }
}

// A model of one value.
class Edited {
 public:
  Edited(Store& store, std::string path, Bytes bytes)
      : store_(store), path_(std::move(path)), bytes_(std::move(bytes)) {
    EXPECT_TRUE(create(store_, path_));
    EXPECT_TRUE(write(store_, path_, 0, bytes_));
  }
  void edit(std::mt19937_64& random) {
    const uint64_t offset = random() % (bytes_.size() + 1000);
    const uint64_t length = 1 + random() % (random() % 4 == 0 ? 9000 : 600);
    switch (random() % 5) {
      case 0:
        bytes_.resize(bytes_.size() / 4 * 3 + offset / 4);
        ASSERT_TRUE(truncate(store_, path_, bytes_.size()));
        return;
      case 1:
        ASSERT_TRUE(punch(store_, path_, offset, length));
        for (uint64_t at = offset; at < std::min(offset + length, bytes_.size()); at++) {
          bytes_[at] = {};
        }
        return;
      default: {
        if (offset + length > store_.options().blob_threshold) return;
        const Bytes piece = pattern(random() % 100, length);
        ASSERT_TRUE(write(store_, path_, offset, piece));
        bytes_.resize(std::max(bytes_.size(), offset + length));
        std::copy(piece.begin(), piece.end(), bytes_.begin() + static_cast<ptrdiff_t>(offset));
      }
    }
  }
  const std::string& path() const { return path_; }
  const Bytes& bytes() const { return bytes_; }

 private:
  Store& store_;
  const std::string path_;
  Bytes bytes_;
};

TEST_P(Compressing, F38_ChangesOfCompressedValues) {
  for (uint64_t seed = 1; seed <= 6; seed++) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SimDisk disk({.seed = seed});
    std::mt19937_64 random(seed);
    const bool is_large = seed % 3 == 0;
    const StoreOptions how = is_large ? large() : options();
    auto store = must_open(disk, how);
    std::vector<Edited> edited;
    for (uint64_t i = 0; i < 8; i++) {
      const uint64_t length = 1000 + random() % (is_large ? 300'000 : 25'000);
      edited.emplace_back(*store, "e" + std::to_string(i), pattern(i, length));
    }
    Values values;
    const auto look = [&](Store& at) {
      values.clear();
      for (const Edited& one : edited) values[one.path()] = one.bytes();
      ASSERT_EQ(check_values(at, values), "");
    };
    for (int round = 0; round < 12; round++) {
      ASSERT_TRUE(clean_all(*store));
      look(*store);
      for (int i = 0; i < 10; i++) edited[random() % edited.size()].edit(random);
      look(*store);
      if (HasFailure()) return;
    }
    EXPECT_GT(store->stats().compressed_records, 10u);
    ASSERT_TRUE(clean_all(*store));
    look(*store);
    ASSERT_TRUE(store->close());
    store.reset();
    for (const bool with_checkpoint : {true, false}) {
      const auto copy = disk.clone_after_power_loss(seed);
      if (!with_checkpoint) erase_checkpoints(*copy);
      look(*must_open(*copy, how));
    }
  }
}

// What is overwritten of a compressed value counts as garbage at once, in proportion: the bound on
// garbage holds for it as for any other.
TEST_P(Compressing, F38_WhatIsOverwrittenIsDead) {
  auto store = must_open(disk_, large());
  const Bytes bytes = pattern(compressible(1), 2 * kMiB);
  put_all(*store, {{"a", bytes}});
  ASSERT_TRUE(clean_all(*store));
  const auto whole = extents_of(*store, "a");
  ASSERT_EQ(whole.size(), 1u);
  const uint64_t live = whole[0].own_bytes();
  EXPECT_LT(live, bytes.size() / 2);
  ASSERT_TRUE(punch(*store, "a", 0, bytes.size() / 4 * 3));
  const auto rest = extents_of(*store, "a");
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_NEAR(static_cast<double>(rest[0].own_bytes()), static_cast<double>(live) / 4, 8);
  EXPECT_EQ(check_index(*store), "");
  const uint64_t dead = store->stats().dead_bytes;
  EXPECT_GE(dead, live / 4 * 3 - 8);
  ASSERT_TRUE(store->gc());
  EXPECT_LT(store->stats().dead_bytes, dead / 2);
  EXPECT_NEAR(static_cast<double>(extents_of(*store, "a")[0].own_bytes()),
              static_cast<double>(live) / 4, static_cast<double>(live) / 20);
}

TEST_P(Compressing, F38_KeptOnlyBelow90Percent) {
  auto store = must_open(disk_, large());
  Values values;
  for (const uint64_t percent : {80, 88, 89, 91, 95, 100}) {  // noise, and zeros behind it
    Bytes bytes = pattern(noise(percent), 60'000 * percent / 100);
    bytes.resize(60'000);
    values[std::to_string(percent)] = bytes;
  }
  put_all(*store, values);
  ASSERT_TRUE(clean_all(*store));
  for (const auto& [path, bytes] : values) {
    const bool kept = path.size() == 2 && path < "90";
    EXPECT_EQ(how_stored(*store, path), kept ? Stored::kCompressed : Stored::kPlain) << path;
  }
  EXPECT_EQ(check_values(*store, values), "");
}

TEST_P(Compressing, F38_WithoutTheOptionCompressedValuesStayAsTheyAre) {
  Values values = all_sizes();
  {
    auto store = must_open(disk_, large());
    put_all(*store, values);
    ASSERT_TRUE(clean_all(*store));
    ASSERT_TRUE(store->close());
  }
  auto store = must_open(disk_, large_compressing_options(Compression::kNone));
  EXPECT_EQ(check_values(*store, values), "");
  values["new"] = pattern(compressible(77), 5000);
  put_all(*store, {{"new", values["new"]}});
  // A part of one stays compressed too: what lies in a log file has to fit in another.
  Bytes& cut = values["text1048576"];
  const Bytes piece = pattern(noise(5), 3000);
  ASSERT_TRUE(write(*store, "text1048576", 500'000, piece));
  std::copy(piece.begin(), piece.end(), cut.begin() + 500'000);
  for (int round = 0; round < 2; round++) {
    ASSERT_TRUE(clean_all(*store));
    EXPECT_EQ(check_values(*store, values), "");
    EXPECT_EQ(how_stored(*store, "text65537"), Stored::kCompressed);
    EXPECT_EQ(how_stored(*store, "text1048576"), Stored::kPartly);
    EXPECT_EQ(how_stored(*store, "new"), Stored::kPlain);
  }
}

// An older valfs must not take frames for bytes: the superblock says so before there are any.
TEST_P(Compressing, F38_TheSuperblockSaysSoFirst) {
  auto store = must_open(disk_, options());
  Values values;
  for (uint64_t i = 0; i < 30; i++) values["f" + std::to_string(i)] = pattern(i, 3000);
  put_all(*store, values);
  ASSERT_TRUE(store->sync());
  EXPECT_EQ(log::read_superblock(disk_)->incompat, 0u);
  uint64_t stops = 0;
  uint64_t compressed = 0;
  disk_.set_fault([&](const Operation& operation) {
    if (operation.kind >= OperationKind::kOpen || HasFailure()) return 0;
    const auto copy = disk_.clone_after_power_loss(stops++);
    const auto superblock = log::read_superblock(*copy);
    EXPECT_TRUE(superblock);
    const auto opened = open_store(*copy, options());
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().what);
    if (!opened || !superblock) return 0;
    EXPECT_EQ(check_values(**opened, values), "");
    bool any = false;
    for (const auto& [path, bytes] : values) any |= how_stored(**opened, path) != Stored::kPlain;
    EXPECT_TRUE(!any || superblock->incompat == log::Superblock::kCompressedRecords);
    compressed += any ? 1 : 0;
    return 0;
  });
  ASSERT_TRUE(clean_all(*store));
  disk_.set_fault({});
  EXPECT_GT(compressed, 2u);
  EXPECT_LT(compressed, stops);
  ASSERT_TRUE(store->close());
  store.reset();
  auto superblock = *log::read_superblock(disk_);
  EXPECT_EQ(superblock.incompat, log::Superblock::kCompressedRecords);
  superblock.incompat |= 2;
  ASSERT_TRUE(log::write_superblock(disk_, superblock));
  const auto refused = open_store(disk_, options());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EINVAL);
}

// Copies that could not be written are read out of their slots.
TEST_P(Compressing, F38_P1_CopiesInStagingSlots) {
  auto store = must_open(disk_, options());
  Values values;
  for (uint64_t i = 0; i < 12; i++) values["f" + std::to_string(i)] = pattern(i * 3, 12'000);
  put_all(*store, values);
  ASSERT_TRUE(put(*store, "filler", pattern(1, 30'000)));
  ASSERT_TRUE(remove(*store, "filler"));
  ASSERT_TRUE(store->sync());
  ASSERT_TRUE(store->checkpoint());
  disk_.set_fault([](const Operation& operation) {
    return operation.kind == OperationKind::kCompletion ? EIO : 0;
  });
  EXPECT_FALSE(store->gc());
  store->drop_caches();
  int compressed = 0;
  for (const auto& [path, bytes] : values) {
    compressed += how_stored(*store, path) == Stored::kPlain ? 0 : 1;
  }
  EXPECT_GT(compressed, 0);
  EXPECT_EQ(check_values(*store, values), "");
  disk_.set_fault({});
  store.reset();
  disk_.restart(CrashKind::kProcessKill);
  store = must_open(disk_, options());
  EXPECT_EQ(check_values(*store, values), "");
}

TEST_P(Compressing, F38_P2_ErrorsOfTheDiskWhileCleaning) {
  for (uint64_t at = 0; at < 60; at++) {
    SCOPED_TRACE("operation " + std::to_string(at));
    SimDisk disk({.seed = at + 1});
    auto store = must_open(disk, options());
    Values values;
    for (uint64_t i = 0; i < 20; i++) values["f" + std::to_string(i)] = pattern(i, 6000);
    put_all(*store, values);
    ASSERT_TRUE(store->sync());
    uint64_t seen = 0;
    disk.set_fault([&](const Operation& operation) {
      if (operation.kind >= OperationKind::kOpen) return 0;
      return seen++ == at ? EIO : 0;
    });
    (void)clean_all(*store);
    disk.set_fault({});
    EXPECT_EQ(check_values(*store, values), "");
    store.reset();
    disk.restart(at % 2 == 0 ? CrashKind::kPowerLoss : CrashKind::kProcessKill);
    if (at % 4 == 0) erase_checkpoints(disk);
    auto opened = open_store(disk, options());
    ASSERT_TRUE(opened) << opened.error().what;
    EXPECT_EQ(check_values(**opened, values), "");
  }
}

}  // namespace
}  // namespace valfs::test
