// Checkpoints by themselves: what is written while the index changes, and while it does not.
#include "engine/checkpoint/checkpoint.h"

#include <gtest/gtest.h>

#include <map>

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

ObjectId file(int number) { return index::kFirstObject + 2 * static_cast<ObjectId>(number); }

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
