// F25, F26: three ways to the same index: from a checkpoint and the log behind it, from footers,
// and from a full scan. And a fourth, the older of the two checkpoints.
#include <gtest/gtest.h>

#include <map>

#include "tests/support/tree_model.h"

namespace valfs::test {
namespace {

using storage::SimDisk;

// Everything an index knows that outlives a mount, as text.
std::string index_text(const Store& store) {
  std::map<uint64_t, std::string> inodes;
  std::string text;
  store.read_index([&](const index::Index& index) {
    index.for_each_inode([&](const index::Inode& inode) {
      const auto& a = inode.attributes;
      std::string line = std::to_string(inode.id) + " base " + std::to_string(inode.base.packed) +
                         " mode " + std::to_string(a.mode) + " size " + std::to_string(a.size) +
                         " links " + std::to_string(a.links) + " blob " + std::to_string(a.blob) +
                         " changed " + std::to_string(a.change_seconds) + "." +
                         std::to_string(a.change_nanoseconds);
      for (const index::Extent& extent : inode.extents().all()) {
        line += " [" + std::to_string(extent.offset) + "+" + std::to_string(extent.length) + " @" +
                std::to_string(extent.record.packed) + "]";
      }
      inodes[inode.id] = line;
    });
    for (const auto& [id, line] : inodes) text += line + "\n";
    std::map<uint64_t, std::string> names;
    index.for_each_name([&](const index::Name& name) {
      names[name.cookie] = std::string(name.name) + " in " + std::to_string(name.parent) + " is " +
                           std::to_string(name.inode) + " @" + std::to_string(name.record.packed);
    });
    for (const auto& [cookie, line] : names) text += line + "\n";
    text += "live " + std::to_string(index.live().total());
  });
  return text;
}

std::vector<std::string> checkpoints(const SimDisk& disk) {
  std::vector<std::string> paths;
  for (const std::string& path : disk.files()) {
    if (path.rfind("checkpoint/", 0) == 0) paths.push_back(path);
  }
  return paths;
}

// A volume with a history, large payloads among it, closed.
void make_volume(SimDisk& disk, uint64_t seed) {
  FakeClock clock;
  StoreOptions options = small_options(clock);
  options.blob_threshold = 60 * kKiB;
  if (seed % 2 == 0) options.compression = Compression::kZstd;
  auto store = must_open(disk, options);
  ActionSource source(seed, true);
  Tree tree;
  for (int i = 0; i < 150; i++) {
    const Action action = source.next(tree);
    ASSERT_TRUE(run(*store, clock, action)) << action.text();
    tree.apply(action);
  }
  for (int i = 0; i < 8; i++) {
    ASSERT_TRUE(put(*store, "large" + std::to_string(i), pattern(seed + 1, 50'000)));
  }
  ASSERT_TRUE(store->checkpoint());
  ASSERT_TRUE(put(*store, "last", pattern(seed, 100)));
  ASSERT_TRUE(store->close());
}

TEST(Rebuild, F25_F26_ThreeWaysGiveTheSameIndex) {
  for (uint64_t seed = 1; seed <= 12; seed++) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SimDisk disk({.seed = seed});
    make_volume(disk, seed);
    if (HasFatalFailure()) return;
    auto copy = disk.clone_after_power_loss(seed);
    const std::string expected = index_text(*must_open(*copy, small_options()));
    const auto reopen = [&](SimDisk& opened) {
      auto store = must_open(opened, small_options());
      EXPECT_EQ(store->stats().damaged_groups, 0u);
      EXPECT_EQ(check_index(*store), "");
      EXPECT_EQ(index_text(*store), expected);
      return store->stats();
    };
    copy = disk.clone_after_power_loss(seed);
    EXPECT_TRUE(reopen(*copy).used_checkpoint);

    // The newest checkpoint is damaged.
    copy = disk.clone_after_power_loss(seed);
    ASSERT_EQ(checkpoints(*copy).size(), 2u);
    ASSERT_TRUE(copy->flip_bit(checkpoints(*copy).back(), 8 * 100));
    EXPECT_TRUE(reopen(*copy).used_older_checkpoint);

    // Both are gone. Several threads find what one does.
    copy = disk.clone_after_power_loss(seed);
    copy->set_readers(seed % 3 + 1);
    for (const std::string& path : checkpoints(*copy)) ASSERT_TRUE(copy->erase(path));
    auto stats = reopen(*copy);
    EXPECT_FALSE(stats.used_checkpoint);
    EXPECT_GT(stats.footers_used, 0u);
    EXPECT_LE(stats.log_files, stats.footers_used + 1) << "but for the one of this mount";

    // The footers, too.
    copy = disk.clone_after_power_loss(seed);
    copy->set_readers(seed % 3 + 1);
    for (const std::string& path : checkpoints(*copy)) ASSERT_TRUE(copy->erase(path));
    for (const std::string& path : copy->files()) {
      if (path.rfind("wal/", 0) != 0) continue;
      ASSERT_TRUE(copy->flip_bit(path, copy->contents(path)->size() * 8 - 100));
    }
    stats = reopen(*copy);
    EXPECT_FALSE(stats.used_checkpoint);
    EXPECT_EQ(stats.footers_used, 0u);
  }
}

// What a footer says is believed only as far as the log agrees.
TEST(Rebuild, F26_AFooterThatDisagreesIsIgnored) {
  SimDisk disk({});
  make_volume(disk, 3);
  for (const std::string& path : checkpoints(disk)) ASSERT_TRUE(disk.erase(path));
  // A record header of the first group of a file is damaged: the scan has to find out how much.
  std::string file;
  for (const std::string& path : disk.files()) {
    if (path.rfind("wal/", 0) == 0) file = path;
  }
  ASSERT_TRUE(disk.flip_bit(file, 8 * (log::kFirstGroupOffset + sizeof(log::GroupHeader) + 8)));
  auto store = must_open(disk, small_options());
  EXPECT_LT(store->stats().footers_used, store->stats().log_files);
}

}  // namespace
}  // namespace valfs::test
