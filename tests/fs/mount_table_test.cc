#include "fs/mount_table.h"

#include <gtest/gtest.h>

namespace valfs::fs {
namespace {

constexpr const char* kTable =
    "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
    "30 22 0:25 / /mnt/plain rw,nosuid - fuse.valfs /var/lib/valfs rw,user_id=0\n"
    "31 22 0:26 / /mnt/with\\040space\\011tab\\134back\\012line rw shared:2 master:1 - fuse.valfs "
    "/data\\040one rw\n"
    "32 22 0:27 / /mnt/stack rw - tmpfs tmpfs rw\n"
    "33 22 0:28 /sub /mnt/stack rw - fuse.valfs /stacked rw\n"
    "34 22 0:29 / /mnt/plain/inner rw - ext4 /dev/vdb rw\n";

TEST(MountTable, ReadsFields) {
  const MountTable table = MountTable::parse(kTable);
  ASSERT_EQ(table.entries().size(), 6u);
  const MountEntry* entry = table.find("/mnt/plain");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->device, (DeviceNumber{0, 25}));
  EXPECT_EQ(entry->type, "fuse.valfs");
  EXPECT_EQ(entry->source, "/var/lib/valfs");
  EXPECT_TRUE(entry->is_valfs());
  EXPECT_FALSE(table.find("/")->is_valfs());
}

TEST(MountTable, UnescapesOctal) {
  const MountTable table = MountTable::parse(kTable);
  const MountEntry* entry = table.find("/mnt/with space\ttab\\back\nline");
  ASSERT_NE(entry, nullptr);
  EXPECT_EQ(entry->source, "/data one");
}

TEST(MountTable, KeepsBackslashesThatEscapeNothing) {
  const MountTable table = MountTable::parse("1 0 0:5 / /a\\9\\04 rw - ext4 x\\ rw\n");
  ASSERT_EQ(table.entries().size(), 1u);
  EXPECT_EQ(table.entries()[0].mountpoint, "/a\\9\\04");
  EXPECT_EQ(table.entries()[0].source, "x\\");
}

TEST(MountTable, FindsTopmost) {
  const MountTable table = MountTable::parse(kTable);
  EXPECT_EQ(table.find("/mnt/stack")->source, "/stacked");
  EXPECT_EQ(table.find("/mnt"), nullptr);
  EXPECT_EQ(table.find("/mnt/stack/"), nullptr);
}

TEST(MountTable, FindsByDeviceAndSource) {
  const MountTable table = MountTable::parse(kTable);
  EXPECT_EQ(table.find_device({0, 28})->mountpoint, "/mnt/stack");
  EXPECT_EQ(table.find_device({0, 99}), nullptr);
  EXPECT_EQ(table.find_source("/stacked")->mountpoint, "/mnt/stack");
  EXPECT_EQ(table.find_source("tmpfs"), nullptr) << "not ours";
}

TEST(MountTable, FindsTheMountAroundAPath) {
  const MountTable table = MountTable::parse(kTable);
  ASSERT_NE(table.find_around("/mnt/plain/a/b"), nullptr);
  EXPECT_EQ(table.find_around("/mnt/plain/a/b")->mountpoint, "/mnt/plain");
  EXPECT_EQ(table.find_around("/mnt/plain/inner/a"), nullptr) << "another mount lies between";
  EXPECT_EQ(table.find_around("/mnt/plainer"), nullptr);
}

TEST(MountTable, LeavesOutWhatItCannotRead) {
  EXPECT_TRUE(MountTable::parse("").entries().empty());
  EXPECT_TRUE(MountTable::parse("nonsense\n\n1 2 3\n").entries().empty());
  EXPECT_TRUE(MountTable::parse("1 0 0:x / /a rw - ext4 x rw\n").entries().empty());
  EXPECT_TRUE(MountTable::parse("1 0 0:5 / /a rw shared:1 ext4 x rw\n").entries().empty());
  EXPECT_TRUE(MountTable::parse("1 0 0:5 / /a rw - ext4\n").entries().empty());
}

TEST(MountTable, ReadsTheRealOne) {
  const auto table = MountTable::read();
  ASSERT_TRUE(table) << table.error().what;
  EXPECT_NE(table->find("/"), nullptr);
}

TEST(LiesIn, ComparesWholeNames) {
  EXPECT_TRUE(lies_in("/a/b", "/a"));
  EXPECT_TRUE(lies_in("/a", "/a"));
  EXPECT_TRUE(lies_in("/a", "/"));
  EXPECT_FALSE(lies_in("/ab", "/a"));
  EXPECT_FALSE(lies_in("/a", "/a/b"));
}

}  // namespace
}  // namespace valfs::fs
