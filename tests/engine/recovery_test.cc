// The decision table of engine/README.md, row by row, and the three ways to the same index.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/log/group.h"
#include "engine/log/superblock.h"
#include "engine/recovery/file_scan.h"
#include "tests/support/tree_model.h"

namespace valfs::test {
namespace {

using log::kBlock;
using storage::CrashKind;
using storage::SimDisk;

// A group as it lies on the disk.
struct OnDisk {
  std::string path;
  uint64_t offset;
  uint64_t length;
  log::GroupHeader header;
};

std::vector<OnDisk> groups_on(SimDisk& disk) {
  std::vector<OnDisk> groups;
  for (const std::string& path : disk.files()) {
    if (path.rfind("wal/", 0) != 0) continue;
    const auto bytes = *disk.contents(path);
    for (uint64_t at = kBlock; at + kBlock <= bytes.size(); at += kBlock) {
      log::GroupHeader header;
      std::memcpy(&header, bytes.data() + at, sizeof header);
      if (header.magic != log::GroupHeader::kMagic) continue;
      groups.push_back({path, at, log::round_up(header.length, kBlock), header});
    }
  }
  std::sort(groups.begin(), groups.end(),
            [](const OnDisk& a, const OnDisk& b) { return a.header.sequence < b.header.sequence; });
  return groups;
}

void erase_checkpoints(SimDisk& disk) {
  for (const std::string& path : disk.files()) {
    if (path.rfind("checkpoint/", 0) == 0) {
      ASSERT_TRUE(disk.erase(path));
    }
  }
}

Bytes value(int i) {
  return pattern(100 + static_cast<uint64_t>(i), 3000);
}
std::string name(int i) {
  return "f" + std::to_string(i);
}

// Values f0 … f5, each in a group of its own, and no clean end.
class DecisionTable : public ::testing::Test {
 protected:
  static constexpr int kCount = 6;
  SimDisk disk_{{.seed = 3}};

  void fill() {
    auto store = must_open(disk_, small_options());
    for (int i = 0; i < kCount; i++) {
      ASSERT_TRUE(put(*store, name(i), value(i)));
      ASSERT_TRUE(store->sync());
    }
    store.reset();
    disk_.restart(CrashKind::kPowerLoss);
  }
  // The group that holds value i.
  OnDisk group_of(int i) {
    const auto groups = groups_on(disk_);
    return groups[groups.size() - static_cast<size_t>(kCount - i)];
  }
  void destroy(const OnDisk& group) {
    ASSERT_TRUE(disk_.corrupt(group.path, group.offset, pattern(9, group.length)));
  }
  void zero(const OnDisk& group) {
    ASSERT_TRUE(disk_.corrupt(group.path, group.offset, Bytes(group.length)));
  }
  // Lets the header of a group say that nothing before it was known to be durable.
  void forget_watermark(const OnDisk& group) {
    const auto bytes = *disk_.contents(group.path);
    log::GroupHeader header = group.header;
    header.watermark = 0;
    const log::Salt salt{header.volume_salt, header.epoch == 0 ? 0 : header.file, header.epoch};
    header.crc = log::salted_crc(salt, group.offset,
                                 log::bytes_of(header).first(offsetof(log::GroupHeader, crc)));
    ASSERT_TRUE(disk_.corrupt(group.path, group.offset, log::bytes_of(header)));
  }
  void forget_all_watermarks() {
    for (const OnDisk& group : groups_on(disk_)) forget_watermark(group);
    // Nor does the superblock know anything.
    auto superblock = *log::read_superblock(disk_);
    superblock.durable_group = 0;
    ASSERT_TRUE(log::write_superblock(disk_, superblock));
  }
  // How many of the values are there in full; the others must be missing or answer EIO.
  int count_values(Store& store) {
    int good = 0;
    for (int i = 0; i < kCount; i++) {
      if (look_up(store, name(i)) == 0) continue;
      const auto bytes = get(store, name(i));
      if (!bytes) {
        EXPECT_EQ(bytes.error().code, EIO);
      } else if (*bytes == value(i)) {
        good++;
      } else {
        ADD_FAILURE() << name(i) << " has wrong contents";
      }
    }
    return good;
  }
};

TEST_F(DecisionTable, Row1AcknowledgedDataDamagedIsKeptAndReported) {
  fill();
  destroy(group_of(2));
  auto store = must_open(disk_, small_options());
  EXPECT_EQ(count_values(*store), kCount - 1);
  EXPECT_EQ(store->stats().damaged_groups, 1u);
  EXPECT_FALSE(store->recovery_warnings().empty());
  EXPECT_EQ(*get(*store, name(5)), value(5));
  ASSERT_TRUE(put(*store, "more", value(9)));
  ASSERT_TRUE(store->close());
  store.reset();
  store = must_open(disk_, small_options());
  EXPECT_EQ(count_values(*store), kCount - 1);
}

TEST_F(DecisionTable, Row2GroupsBehindAnUnacknowledgedGapAreDropped) {
  fill();
  forget_all_watermarks();
  zero(group_of(3));
  auto store = must_open(disk_, small_options());
  EXPECT_EQ(count_values(*store), 3);
  EXPECT_EQ(store->stats().dropped_groups, 2u);
  EXPECT_EQ(store->stats().damaged_groups, 0u);
  // They never come back.
  ASSERT_TRUE(put(*store, "new", value(9)));
  ASSERT_TRUE(store->sync());
  store.reset();
  disk_.restart(CrashKind::kPowerLoss);
  store = must_open(disk_, small_options());
  EXPECT_EQ(count_values(*store), 3);
  EXPECT_EQ(*get(*store, "new"), value(9));
}

TEST_F(DecisionTable, Row3AcknowledgedTailDamaged) {
  fill();
  auto superblock = *log::read_superblock(disk_);
  superblock.durable_group = group_of(kCount - 1).header.sequence;
  ASSERT_TRUE(log::write_superblock(disk_, superblock));
  destroy(group_of(kCount - 1));
  auto store = must_open(disk_, small_options());
  EXPECT_EQ(count_values(*store), kCount - 1);
  EXPECT_EQ(store->stats().damaged_groups, 1u);
}

TEST_F(DecisionTable, Row3AnEmptyGroupVouchesForTheLast) {
  FakeClock clock;
  auto store = must_open(disk_, small_options(clock));
  ASSERT_TRUE(put(*store, "last", value(1)));
  ASSERT_TRUE(store->sync());
  for (int i = 0; i < 5; i++) {
    clock.advance(std::chrono::milliseconds(700));
    store->tick();
    while (disk_.step()) {
    }
  }
  const auto groups = groups_on(disk_);
  ASSERT_GE(groups.size(), 2u);
  EXPECT_EQ(groups.back().header.record_count, 0u);
  EXPECT_EQ(groups.back().header.watermark + 1, groups.back().header.sequence);
  store.reset();
  disk_.restart(CrashKind::kPowerLoss);
  destroy(groups[groups.size() - 2]);
  store = must_open(disk_, small_options());
  EXPECT_EQ(store->stats().damaged_groups, 1u);
}

TEST_F(DecisionTable, Row4ATornTailIsTheEnd) {
  fill();
  forget_all_watermarks();
  const OnDisk last = group_of(kCount - 1);
  ASSERT_TRUE(disk_.corrupt(last.path, last.offset + 512, Bytes(512)));
  auto store = must_open(disk_, small_options());
  EXPECT_EQ(count_values(*store), kCount - 1);
  EXPECT_EQ(store->stats().damaged_groups, 0u);
  EXPECT_EQ(store->stats().dropped_groups, 1u);
}

// The mount took the damaged group for a lost log file, and refused.
TEST_F(DecisionTable, Row1DamageBeforeATornTail) {
  fill();
  destroy(group_of(kCount - 2));
  const OnDisk last = group_of(kCount - 1);
  ASSERT_TRUE(disk_.corrupt(last.path, last.offset + 1000, pattern(9, 100)));
  auto opened = open_store(disk_, small_options());
  ASSERT_TRUE(opened) << opened.error().what;
  EXPECT_EQ((*opened)->stats().damaged_groups, 1u);
  EXPECT_EQ((*opened)->stats().dropped_groups, 1u);
  EXPECT_EQ(count_values(**opened), kCount - 2);
  ASSERT_TRUE(put(**opened, "more", value(7)));
  ASSERT_TRUE((*opened)->sync());
  (*opened).reset();
  disk_.restart(CrashKind::kPowerLoss);
  const auto again = open_store(disk_, small_options());
  ASSERT_TRUE(again) << again.error().what;
  EXPECT_EQ(*get(**again, "more"), value(7));
  EXPECT_EQ(count_values(**again), kCount - 2);
}

TEST_F(DecisionTable, Row5AReadErrorIsNotTheEndOfTheLog) {
  fill();
  const OnDisk bad = group_of(2);
  disk_.set_fault([&](const storage::Operation& operation) {
    const bool hit = operation.kind == storage::OperationKind::kRead &&
                     operation.path == bad.path && operation.offset < bad.offset + kBlock &&
                     operation.offset + operation.length > bad.offset;
    return hit ? EIO : 0;
  });
  auto store = must_open(disk_, small_options());
  EXPECT_GE(count_values(*store), kCount - 1);
  EXPECT_EQ(*get(*store, name(5)), value(5));
}

TEST_F(DecisionTable, Row6AMissingLogFileRefusesTheMount) {
  {
    auto store = must_open(disk_, small_options());
    for (int i = 0; i < 60; i++) {  // several log files
      ASSERT_TRUE(put(*store, "x" + std::to_string(i), pattern(1, 20'000)));
    }
    ASSERT_TRUE(store->sync());
  }
  disk_.restart(CrashKind::kPowerLoss);
  const auto groups = groups_on(disk_);
  const std::string victim = groups[groups.size() / 2].path;
  ASSERT_NE(victim, groups.back().path);
  const auto before = disk_.files();
  ASSERT_TRUE(disk_.erase(victim));
  const auto opened = open_store(disk_, small_options());
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ENODATA);
  EXPECT_NE(opened.error().what.find(victim), std::string::npos) << opened.error().what;
  EXPECT_EQ(disk_.files().size(), before.size() - 1);
}

// --- P9 ---

TEST(Damage, APayloadCostsItsValueOnly) {
  SimDisk disk({});
  auto options = small_options();
  auto store = must_open(disk, options);
  for (int i = 0; i < 4; i++) ASSERT_TRUE(put(*store, name(i), value(i)));
  ASSERT_TRUE(store->sync());
  store->drop_caches();
  const auto groups = groups_on(disk);
  const Bytes whole = value(2);
  const Bytes needle(whole.begin() + 1000, whole.begin() + 1016);
  bool found = false;
  for (const auto& path : disk.files()) {
    const auto bytes = *disk.contents(path);
    const auto at = std::search(bytes.begin(), bytes.end(), needle.begin(), needle.end());
    if (at == bytes.end()) continue;
    ASSERT_TRUE(disk.flip_bit(path, static_cast<uint64_t>(at - bytes.begin()) * 8 + 3));
    found = true;
  }
  ASSERT_TRUE(found);
  for (int mounts = 0; mounts < 3; mounts++) {
    for (int i = 0; i < 4; i++) {
      const auto bytes = get(*store, name(i));
      if (i != 2) {
        ASSERT_TRUE(bytes) << bytes.error().what;
        EXPECT_EQ(*bytes, value(i));
        continue;
      }
      ASSERT_FALSE(bytes);
      EXPECT_EQ(bytes.error().code, EIO);
      EXPECT_NE(bytes.error().what.find("wal/"), std::string::npos) << bytes.error().what;
      EXPECT_NE(bytes.error().what.find("offset"), std::string::npos) << bytes.error().what;
    }
    // The cleaner must not take it away, nor choke on it.
    ASSERT_TRUE(put(*store, "filler", pattern(5, 60'000)));
    ASSERT_TRUE(store->gc());
    ASSERT_TRUE(store->close());
    store.reset();
    if (mounts == 1) {
      erase_checkpoints(disk);
    }
    store = must_open(disk, options);
  }
  ASSERT_TRUE(put(*store, name(2), value(7)));
  EXPECT_EQ(*get(*store, name(2)), value(7));
}

TEST(Damage, AnyBitOfTheLogCostsAtMostOneGroupsValues) {
  FakeClock clock;
  for (uint64_t seed = 0; seed < 150; seed++) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SimDisk disk({.seed = 1});
    {
      auto store = must_open(disk, small_options());
      for (int i = 0; i < 8; i++) {
        ASSERT_TRUE(put(*store, name(i), value(i)));
        if (i % 2 == 0) continue;
        ASSERT_TRUE(store->sync());
      }
    }
    disk.restart(CrashKind::kPowerLoss);
    std::mt19937_64 random(seed);
    const auto groups = groups_on(disk);
    const OnDisk& group = groups[random() % groups.size()];
    ASSERT_TRUE(disk.flip_bit(group.path, (group.offset + random() % group.header.length) * 8));
    auto opened = open_store(disk, small_options());
    ASSERT_TRUE(opened) << opened.error().what;
    int bad = 0;
    for (int i = 0; i < 8; i++) {
      const auto bytes = get(**opened, name(i));
      if (bytes && *bytes == value(i)) continue;
      // In the last group nobody knows whether it was acknowledged; an empty value is one whose
      // bytes came with it.
      EXPECT_TRUE(!bytes || bytes->empty()) << name(i) << " has wrong bytes";
      bad++;
    }
    EXPECT_LE(bad, 2);
  }
}

// A record of attributes is lost: the bytes of the value must not go with it.
TEST(Damage, AValueWithoutAttributesStaysThere) {
  SimDisk disk({});
  {
    auto store = must_open(disk, small_options());
    ASSERT_TRUE(create(*store, "a"));
    ASSERT_TRUE(store->sync());
    ASSERT_TRUE(write(*store, "a", 0, value(1)));
    ASSERT_TRUE(store->sync());
    ASSERT_TRUE(put(*store, "b", value(2)));
    ASSERT_TRUE(store->sync());
  }
  disk.restart(CrashKind::kPowerLoss);
  // The group of the creation: a NAME, and the INODE behind it.
  const auto groups = groups_on(disk);
  for (const OnDisk& group : groups) {
    const auto bytes = *disk.contents(group.path);
    const log::Salt salt{group.header.volume_salt, group.header.file, group.header.epoch};
    const auto image = std::span(bytes).subspan(group.offset, group.length);
    const auto contents = log::read_group(image, group.header, salt, group.offset);
    if (contents.records.size() != 2 || contents.records[0].found.record.name != "a") continue;
    ASSERT_TRUE(disk.flip_bit(group.path, (group.offset + contents.records[1].offset + 80) * 8));
  }
  auto store = must_open(disk, small_options());
  EXPECT_EQ(*get(*store, "b"), value(2));
  const auto bytes = get(*store, "a");
  ASSERT_TRUE(bytes) << bytes.error().what;
  EXPECT_EQ(*bytes, value(1));
}

// --- three ways to one index ---

std::string entry_text(const StoreImage& image) {
  std::string text = image.error;
  for (const auto& [path, entry] : image.paths) {
    text += path + " " + std::to_string(entry.inode) + " " + std::to_string(entry.links) + " " +
            std::to_string(entry.permissions) + " " + std::to_string(entry.bytes.size()) + "\n";
  }
  return text;
}

// Attributes, too, must be the same: times, sizes.
std::map<log::ObjectId, index::Attributes> attributes_in(const Store& store) {
  std::map<log::ObjectId, index::Attributes> all;
  store.read_index([&](const index::Index& index) {
    index.for_each_inode([&](const index::Inode& inode) {
      if (!inode.sums) all[inode.id] = inode.attributes;
    });
  });
  return all;
}

TEST(ThreeWays, CheckpointAndTailGiveWhatTheWholeLogGives) {
  for (uint64_t seed = 1; seed <= 60; seed++) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SimDisk disk({.seed = seed});
    FakeClock clock;
    auto store = must_open(disk, small_options(clock));
    ActionSource source(seed, seed % 3 == 0);
    Tree tree;
    std::string history;
    for (int i = 0; i < 120; i++) {
      const Action action = source.next(tree);
      history += action.text() + "\n";
      tree.apply(action);
      ASSERT_TRUE(run(*store, clock, action)) << history;
    }
    ASSERT_TRUE(store->sync());
    const auto attributes = attributes_in(*store);
    store.reset();
    while (disk.step()) {
    }
    // As it is: checkpoint and tail, if there was a checkpoint.
    const auto with = disk.clone_after_process_kill(seed);
    const auto without = disk.clone_after_process_kill(seed);
    erase_checkpoints(*without);
    for (SimDisk* each : {with.get(), without.get()}) {
      auto again = must_open(*each, small_options(clock));
      const StoreImage image = StoreImage::of(*again);
      EXPECT_EQ(difference(image, tree), "")
          << (each == with.get() ? "with" : "without") << " checkpoint\n"
          << history;
      EXPECT_EQ(check_index(*again), "");
      EXPECT_TRUE(attributes_in(*again) == attributes)
          << (each == with.get() ? "with" : "without") << " checkpoint\n"
          << history;
      if (each == without.get()) {
        EXPECT_FALSE(again->stats().used_checkpoint);
      }
      // And once more after cleaning what was found.
      ASSERT_TRUE(again->gc());
      ASSERT_TRUE(again->close());
      again.reset();
      erase_checkpoints(*each);
      again = must_open(*each, small_options(clock));
      EXPECT_EQ(entry_text(StoreImage::of(*again)), entry_text(image)) << history;
      EXPECT_TRUE(attributes_in(*again) == attributes) << history;
    }
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(ThreeWays, ADamagedCheckpointIsNoLoss) {
  SimDisk disk({});
  {
    auto store = must_open(disk, small_options());
    for (int i = 0; i < 6; i++) ASSERT_TRUE(put(*store, name(i), value(i)));
    ASSERT_TRUE(store->close());
  }
  for (const auto& path : disk.files()) {
    if (path.rfind("checkpoint/", 0) == 0) {
      ASSERT_TRUE(disk.flip_bit(path, disk.contents(path)->size() * 8 / 2));
    }
  }
  auto store = must_open(disk, small_options());
  EXPECT_FALSE(store->stats().used_checkpoint);
  EXPECT_FALSE(store->recovery_warnings().empty());
  for (int i = 0; i < 6; i++) EXPECT_EQ(*get(*store, name(i)), value(i));
}

}  // namespace
}  // namespace valfs::test
