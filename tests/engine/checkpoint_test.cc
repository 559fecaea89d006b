// Checkpoints by themselves: what is written while the index changes, and while it does not.
#include "engine/checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "engine/checkpoint/pages.h"
#include "engine/storage/sim_disk.h"

namespace valfs::checkpoint {
namespace {

using index::Index;
using index::Inode;
using index::Name;
using log::ObjectId;

constexpr int kFiles = 2000;
constexpr uint64_t kGeneration = 3;

ObjectId file(int number) {
  return index::kFirstObject + 2 * static_cast<ObjectId>(number);
}

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(disk_.make_directory("checkpoint"));
    Inode root;
    root.id = index::kRoot;
    index_.restore_inode(root, {});
    for (int i = 0; i < kFiles; i++) {
      Inode inode;
      inode.id = file(i);
      inode.attributes.links = 1;
      inode.attributes.size = static_cast<uint64_t>(i);
      index_.restore_inode(inode, {});
      link("f" + std::to_string(i), file(i), file(i) + 1);
    }
  }
  // Whatever had that name gives it up.
  void link(const std::string& as, ObjectId inode, ObjectId cookie) {
    Name name;
    name.cookie = cookie;
    name.parent = index::kRoot;
    name.inode = inode;
    name.name = as;
    index_.restore_name(name);
  }
  // `meanwhile` is called after each piece of the index, with the count of pieces so far.
  void write(const std::function<void(int)>& meanwhile = [](int) {}) {
    int pieces = 0;
    ASSERT_TRUE(write_checkpoint(disk_, {}, kGeneration, {}, [&](const auto& use) {
      use(index_);
      meanwhile(++pieces);
    }));
    EXPECT_GT(pieces, 3);
  }
  bool is_exact() {
    const auto opened = disk_.open(checkpoint_path(kGeneration), storage::OpenMode::kRead);
    return read_end_page(**opened, (*opened)->info()->size, kGeneration) == 1;
  }
  static std::map<std::string, ObjectId> names_of(const Index& index) {
    std::map<std::string, ObjectId> names;
    index.for_each_name([&](const Name& name) {
      EXPECT_TRUE(names.emplace(name.name, name.inode).second) << name.name << " is there twice";
    });
    return names;
  }
  void expect_same() {
    Index read;
    ASSERT_TRUE(read_checkpoint(disk_, {}, kGeneration, read));
    EXPECT_EQ(names_of(read), names_of(index_));
    EXPECT_EQ(read.inode_count(), index_.inode_count());
    EXPECT_EQ(read.find(index::kRoot)->child_count(), index_.find(index::kRoot)->child_count());
    index_.for_each_inode([&](const Inode& inode) {
      const auto found = read.find(inode.id);
      ASSERT_TRUE(found) << inode.id;
      EXPECT_EQ(found->attributes.size, inode.attributes.size);
      EXPECT_EQ(read.count_names(*found), index_.count_names(inode));
    });
  }

  storage::SimDisk disk_{{.seed = 1}};
  Index index_;
};

TEST_F(CheckpointTest, F25_HoldsTheWholeIndex) {
  write();
  EXPECT_TRUE(is_exact());
  expect_same();
}

// Numbers of every length, small ones and those at the ends of their range among them.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : random_(seed) {}
  uint64_t next(int bits = 64) {
    const uint64_t value = random_() >> (random_() % 64);
    return value & (~uint64_t{0} >> (64 - bits));
  }
  Time time() {
    return {static_cast<int64_t>(next()), static_cast<uint32_t>(random_() % 1'000'000'000)};
  }
  bool once_in(uint64_t count) { return random_() % count == 0; }

 private:
  std::mt19937_64 random_;
};

log::Position some_position(Numbers& numbers) {
  return log::Position::at(static_cast<log::FileId>(numbers.next(20) + 1),
                           (numbers.next(20) + 1) * log::kRecordAlignment);
}

std::vector<index::Extent> some_extents(Numbers& numbers) {
  std::vector<index::Extent> extents;
  uint64_t end = 0;
  const uint64_t count = numbers.once_in(2) ? 1 : numbers.next(3);
  for (uint64_t i = 0; i < count; i++) {
    index::Extent extent;
    extent.offset = end + (numbers.once_in(2) ? 0 : numbers.next(40));
    extent.length = numbers.next(20) + 1;
    extent.compressed = numbers.once_in(4) ? 1 : 0;
    extent.meta = numbers.next(16) + 1;
    extent.lead = extent.compressed != 0 ? 0 : uint64_t{extent.meta};
    if (numbers.once_in(3)) extent.lead += numbers.next(20);
    extent.record = some_position(numbers);
    end = extent.end();
    extents.push_back(extent);
  }
  return extents;
}

Inode some_inode(Numbers& numbers, ObjectId id, uint64_t least_size) {
  Inode inode;
  inode.id = id;
  inode.sequence = numbers.next(60);
  if (!numbers.once_in(5)) {
    inode.base = some_position(numbers);
    inode.base_sequence = numbers.next(60);
  }
  auto& a = inode.attributes;
  a.mode = numbers.once_in(2) ? 0100644 : static_cast<uint32_t>(numbers.next(32));
  a.uid = static_cast<uint32_t>(numbers.next(32));
  a.gid = numbers.once_in(2) ? 0 : static_cast<uint32_t>(numbers.next(32));
  a.links = static_cast<uint32_t>(numbers.next(32));
  a.device = numbers.once_in(2) ? 0 : numbers.next();
  a.blob = numbers.once_in(2) ? 0 : numbers.next();
  a.size = numbers.once_in(2) ? least_size : std::max(least_size, numbers.next(63));
  a.set_modified(numbers.time());
  a.set_changed(numbers.once_in(2) ? a.modified() : numbers.time());
  a.set_accessed(numbers.once_in(2) ? a.modified() : numbers.time());
  a.set_born(numbers.once_in(2) ? a.accessed() : numbers.time());
  inode.sums = numbers.once_in(3);
  inode.damaged = numbers.once_in(3);
  inode.lossy = numbers.once_in(3);
  return inode;
}

TEST_F(CheckpointTest, F25_EveryFieldOfEveryInodeSurvives) {
  for (uint64_t seed = 1; seed <= 300; seed++) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Numbers numbers(seed);
    Index index;
    for (ObjectId id = 16; id < 40; id++) {
      const auto extents = some_extents(numbers);
      index.restore_inode(some_inode(numbers, id, extents.empty() ? 0 : extents.back().end()),
                          extents);
      for (uint64_t i = numbers.next(2); i > 0; i--) {
        Name name;
        name.cookie = numbers.next(62) + 1;
        name.parent = numbers.next(62) + 16;
        name.inode = id;
        name.record = numbers.once_in(3) ? log::Position{} : some_position(numbers);
        const std::string text(numbers.next(8), 'n');
        name.name = text;
        index.restore_name(name);
      }
    }
    storage::SimDisk disk({.seed = seed});
    ASSERT_TRUE(disk.make_directory("checkpoint"));
    ASSERT_TRUE(write_checkpoint(disk, {}, 1, {}, [&](const auto& use) { use(index); }));
    Index read;
    ASSERT_TRUE(read_checkpoint(disk, {}, 1, read));
    EXPECT_EQ(read.inode_count(), index.inode_count());
    EXPECT_EQ(read.live().total(), index.live().total());
    index.for_each_inode([&](const Inode& inode) {
      const auto found = read.find(inode.id);
      ASSERT_TRUE(found) << inode.id;
      EXPECT_EQ(found->attributes, inode.attributes);
      EXPECT_EQ(found->sequence, inode.sequence);
      EXPECT_EQ(found->base, inode.base);
      EXPECT_EQ(found->base_sequence, inode.base_sequence);
      EXPECT_EQ(found->sums, inode.sums);
      EXPECT_EQ(found->damaged, inode.damaged);
      EXPECT_EQ(found->lossy, inode.lossy);
      const auto extents = inode.extents().all();
      ASSERT_EQ(found->extents().all().size(), extents.size());
      EXPECT_EQ(std::memcmp(found->extents().all().data(), extents.data(), extents.size_bytes()),
                0);
    });
    index.for_each_name([&](const Name& name) {
      const auto found = read.find(name.parent, name.name);
      ASSERT_TRUE(found) << name.name;
      EXPECT_EQ(found->cookie, name.cookie);
      EXPECT_EQ(found->inode, name.inode);
      EXPECT_EQ(found->record, name.record);
    });
  }
}

// A name that moves from an inode which has been written to one which has not is in it twice.
TEST_F(CheckpointTest, F25_P3_ANameThatMovesMeanwhileIsThereOnce) {
  write([this](int piece) {
    if (piece == 2) link("f1", file(kFiles - 1), 1'000'001);
  });
  EXPECT_FALSE(is_exact());
  expect_same();
}

TEST_F(CheckpointTest, F25_FilesMadeMeanwhileDoNoHarm) {
  int made = kFiles;
  write([&](int) {
    for (int i = 0; i < 300 && made < 3 * kFiles; i++, made++) {
      Inode inode;
      inode.id = file(made);
      index_.restore_inode(inode, {});
      link("f" + std::to_string(made), file(made), file(made) + 1);
    }
  });
  EXPECT_FALSE(is_exact());
  Index read;
  ASSERT_TRUE(read_checkpoint(disk_, {}, kGeneration, read));
  const auto names = names_of(read);
  for (int i = 0; i < kFiles; i++) EXPECT_EQ(names.count("f" + std::to_string(i)), 1u) << i;
}

}  // namespace
}  // namespace valfs::checkpoint
