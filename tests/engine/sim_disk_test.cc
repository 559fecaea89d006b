// Every rule of the simulated disk's fault model. What may happen must happen for some seed, what
// may not must happen for none.
#include "engine/storage/sim_disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "tests/support/blocks.h"

namespace valfs::storage {
namespace {

using test::Blocks;
using test::bytes_of;

constexpr uint64_t kSeeds = 200;

std::string text_of(const std::vector<std::byte>& bytes) {
  std::string text;
  for (const std::byte byte : bytes) text.push_back(static_cast<char>(byte));
  return text;
}

// What a file holds: "-" if there is none.
std::string text_in(const SimDisk& disk, const std::string& path) {
  const auto bytes = disk.contents(path);
  return bytes ? text_of(*bytes) : "-";
}

std::string read_all(File& file) {
  std::vector<std::byte> bytes(file.info()->size);
  const auto count = file.read(0, bytes);
  return count ? text_of(bytes) : "error";
}

std::shared_ptr<File> create(SimDisk& disk, const std::string& path) {
  auto file = disk.open(path, OpenMode::kCreate);
  if (!file) std::abort();
  return *file;
}

// A file whose name, bytes and size are durable.
std::shared_ptr<File> create_durable(SimDisk& disk, const std::string& path,
                                     const std::string& text) {
  auto file = create(disk, path);
  const bool good = file->write(0, bytes_of(text)) && file->sync() && disk.sync_directory("");
  if (!good) std::abort();
  return file;
}

File::Completion ignore() {
  return [](const Status&) {};
}

// The errno that a completion brought; -1 until then.
File::Completion keep(int& code) {
  code = -1;
  return [&code](const Status& status) { code = status ? 0 : status.error().code; };
}

// What `look` sees on the disks that many power losses leave, and how often.
template <class Look>
std::map<std::string, int> after_power_losses(const SimDisk& disk, Look look) {
  std::map<std::string, int> seen;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) ++seen[look(*disk.clone_after_power_loss(seed))];
  return seen;
}

std::set<std::string> contents_after_power_losses(const SimDisk& disk, const std::string& path) {
  std::set<std::string> seen;
  for (const auto& [text, times] :
       after_power_losses(disk, [&](const SimDisk& left) { return text_in(left, path); }))
    seen.insert(text);
  return seen;
}

// One letter for each sector, which must hold nothing else.
std::string letters(const std::string& text, size_t sector_size) {
  std::string letters;
  for (size_t start = 0; start < text.size(); start += sector_size) {
    const std::string sector = text.substr(start, sector_size);
    EXPECT_EQ(sector, std::string(sector.size(), sector[0])) << "torn inside a sector";
    letters.push_back(sector[0]);
  }
  return letters;
}

using Texts = std::set<std::string>;

TEST(SimDisk, BehavesLikeADisk) {
  SimDisk disk({});
  auto file = create(disk, "a");
  ASSERT_TRUE(file->write(5000, bytes_of("hello")));
  EXPECT_EQ(file->info()->size, 5005u);
  EXPECT_EQ(file->info()->allocated, kBlockSize);
  EXPECT_EQ(read_all(*file), std::string(5000, '\0') + "hello");
  std::vector<std::byte> tail(100);
  EXPECT_EQ(*file->read(5003, tail), 2u);
  EXPECT_EQ(*file->read(6000, tail), 0u);
  ASSERT_TRUE(file->resize(5002));
  ASSERT_TRUE(file->resize(5005));
  EXPECT_EQ(read_all(*file), std::string(5000, '\0') + "he" + std::string(3, '\0'));
  ASSERT_TRUE(file->punch(4000, 1 << 20));
  EXPECT_EQ(file->info()->size, 5005u);
  EXPECT_EQ(file->info()->allocated, 0u);
  EXPECT_EQ(disk.description(), "simulated disk");
}

TEST(SimDisk, PunchKeepsTheRestOfASector) {
  SimDisk disk({});
  auto file = create(disk, "a");
  ASSERT_TRUE(file->write(0, bytes_of("abcdef")));
  ASSERT_TRUE(file->punch(1, 2));
  EXPECT_EQ(read_all(*file), std::string("a\0\0def", 6));
  EXPECT_EQ(file->info()->allocated, kBlockSize);
}

TEST(SimDisk, NamesAndErrors) {
  SimDisk disk({});
  EXPECT_EQ(disk.open("a", OpenMode::kRead).error().code, ENOENT);
  create(disk, "a");
  EXPECT_EQ(disk.open("a", OpenMode::kCreate).error().code, EEXIST);
  EXPECT_EQ(disk.make_directory("a").error().code, EEXIST);
  EXPECT_EQ(disk.make_directory("x/d").error().code, ENOENT);
  EXPECT_EQ(disk.open("a/b", OpenMode::kCreate).error().code, ENOTDIR);
  ASSERT_TRUE(disk.make_directory("d"));
  ASSERT_TRUE(disk.make_directory("d"));
  EXPECT_EQ(disk.open("d", OpenMode::kRead).error().code, EISDIR);
  create(disk, "d/z");
  create(disk, "d/y");
  EXPECT_EQ(*disk.list("d"), (std::vector<std::string>{"y", "z"}));
  EXPECT_EQ(disk.remove("d").error().code, ENOTEMPTY);
  EXPECT_EQ(disk.rename("a", "d").error().code, EISDIR);
  ASSERT_TRUE(disk.rename("d/z", "a"));
  ASSERT_TRUE(disk.remove("d/y"));
  ASSERT_TRUE(disk.remove("d"));
  EXPECT_EQ(disk.files(), std::vector<std::string>{"a"});
  EXPECT_EQ(disk.remove("b").error().code, ENOENT);
  EXPECT_NE(disk.rename("some/file", "b").error().what.find("some/file"), std::string::npos);
  auto reader = disk.open("a", OpenMode::kRead);
  EXPECT_EQ((*reader)->write(0, bytes_of("x")).error().code, EBADF);
}

TEST(SimDisk, SyncedBytesAreNeverLost) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", "old");
  EXPECT_EQ(contents_after_power_losses(disk, "a"), Texts{"old"});
  ASSERT_TRUE(file->write(0, bytes_of("newer")));
  ASSERT_TRUE(file->sync());
  EXPECT_EQ(contents_after_power_losses(disk, "a"), Texts{"newer"});
}

TEST(SimDisk, UnsyncedBytesMayBeLostOrKept) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", "old");
  ASSERT_TRUE(file->write(0, bytes_of("new")));
  EXPECT_EQ(read_all(*file), "new");
  EXPECT_EQ(contents_after_power_losses(disk, "a"), (Texts{"old", "new"}));
}

TEST(SimDisk, VersionsInBetweenMaySurvive) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", "0");
  for (const char* version : {"1", "2", "3"}) ASSERT_TRUE(file->write(0, bytes_of(version)));
  EXPECT_EQ(contents_after_power_losses(disk, "a"), (Texts{"0", "1", "2", "3"}));
}

TEST(SimDisk, SectorsTearWholeAndInAnyOrder) {
  for (const size_t sector_size : {size_t{512}, size_t{4096}}) {
    SimDisk disk({.sector_size = sector_size});
    auto file = create_durable(disk, "a", std::string(3 * sector_size, 'o'));
    ASSERT_TRUE(file->write(0, bytes_of(std::string(3 * sector_size, 'n'))));
    const auto seen = after_power_losses(
        disk, [&](const SimDisk& left) { return letters(text_in(left, "a"), sector_size); });
    EXPECT_EQ(seen.size(), 8u) << "not all subsets of three sectors";
  }
}

TEST(SimDisk, PunchedSectorsMayComeBackUntilSync) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", std::string(kBlockSize, 'o'));
  ASSERT_TRUE(file->punch(0, kBlockSize));
  const std::string zeros(kBlockSize, '\0');
  EXPECT_EQ(contents_after_power_losses(disk, "a"), (Texts{std::string(kBlockSize, 'o'), zeros}));
  ASSERT_TRUE(file->sync());
  EXPECT_EQ(contents_after_power_losses(disk, "a"), Texts{zeros});
}

TEST(SimDisk, SizeIsDurableAfterSyncOnly) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", "four");
  ASSERT_TRUE(file->resize(2));
  ASSERT_TRUE(file->resize(6));
  std::set<size_t> sizes;
  for (const std::string& text : contents_after_power_losses(disk, "a")) sizes.insert(text.size());
  EXPECT_EQ(sizes, (std::set<size_t>{2, 4, 6}));
  ASSERT_TRUE(file->sync());
  EXPECT_EQ(contents_after_power_losses(disk, "a"), Texts{std::string("fo\0\0\0\0", 6)});
}

TEST(SimDisk, GrowthWithoutItsBytesReadsAsZeros) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", "");
  ASSERT_TRUE(file->write(0, bytes_of("new")));
  EXPECT_EQ(contents_after_power_losses(disk, "a"), (Texts{"", "new", std::string(3, '\0')}));
}

TEST(SimDisk, BytesBehindASizeThatWasLostStayLost) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", "ab");
  ASSERT_TRUE(file->write(2, bytes_of("cd")));
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    auto left = disk.clone_after_power_loss(seed);
    if (text_in(*left, "a").size() != 2) continue;
    auto again = *left->open("a", OpenMode::kReadWrite);
    ASSERT_TRUE(again->resize(4));
    EXPECT_EQ(read_all(*again), std::string("ab\0\0", 4));
  }
}

TEST(SimDisk, DurableWriteIsDurableWhenItHasEnded) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", "");
  Blocks blocks(2, 'd');
  int outcome = 0;
  file->write_durably(0, blocks.bytes(), keep(outcome));
  EXPECT_EQ(outcome, -1) << "ended inside the call";
  EXPECT_EQ(read_all(*file), "") << "visible before its end";
  EXPECT_TRUE(disk.step());
  EXPECT_EQ(outcome, 0);
  EXPECT_FALSE(disk.step());
  const std::string written(2 * kBlockSize, 'd');
  EXPECT_EQ(read_all(*file), written);
  EXPECT_EQ(contents_after_power_losses(disk, "a"), Texts{written});
}

TEST(SimDisk, DurableWriteMakesNoOtherSectorDurable) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", std::string(2 * kBlockSize, 'o'));
  ASSERT_TRUE(file->write(0, bytes_of(std::string(2 * kBlockSize, 'n'))));
  Blocks blocks(1, 'd');
  file->write_durably(0, blocks.bytes(), ignore());
  ASSERT_TRUE(disk.step());
  const auto seen = after_power_losses(
      disk, [](const SimDisk& left) { return letters(text_in(left, "a"), kBlockSize); });
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_TRUE(seen.contains("do") && seen.contains("dn"));
}

TEST(SimDisk, DurableWriteUnderWayMayBeTorn) {
  SimDisk disk({.sector_size = 512});
  auto file = create_durable(disk, "a", std::string(kBlockSize, 'o'));
  Blocks blocks(1, 'd');
  file->write_durably(0, blocks.bytes(), ignore());
  const auto seen = after_power_losses(
      disk, [](const SimDisk& left) { return letters(text_in(left, "a"), 512); });
  EXPECT_TRUE(seen.contains("oooooooo"));
  EXPECT_TRUE(seen.contains("dddddddd"));
  EXPECT_GT(seen.size(), 20u);
}

TEST(SimDisk, DurableWritesEndInAnyOrder) {
  std::set<std::string> orders;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SimDisk disk({.seed = seed});
    auto file = create(disk, "a");
    Blocks blocks(1, 'd');
    std::string order;
    for (const char name : {'1', '2', '3'})
      file->write_durably(0, blocks.bytes(), [&order, name](const Status&) { order += name; });
    EXPECT_EQ(disk.in_flight(), 3u);
    while (disk.step()) continue;
    orders.insert(order);
  }
  EXPECT_EQ(orders.size(), 6u);
}

TEST(SimDiskDeathTest, BytesOfADurableWriteMustStay) {
  SimDisk disk({});
  auto file = create(disk, "a");
  Blocks blocks(1, 'd');
  file->write_durably(0, blocks.bytes(), ignore());
  blocks.bytes()[17] = std::byte{0};
  EXPECT_DEATH(disk.step(), "bytes_stayed");
}

TEST(SimDisk, NamesAreDurableAfterSyncOfTheDirectory) {
  SimDisk disk({});
  auto file = create(disk, "a");
  ASSERT_TRUE(file->write(0, bytes_of("text")));
  ASSERT_TRUE(file->sync());
  EXPECT_EQ(contents_after_power_losses(disk, "a"), (Texts{"-", "text"}));
  ASSERT_TRUE(disk.sync_directory(""));
  EXPECT_EQ(contents_after_power_losses(disk, "a"), Texts{"text"});
  ASSERT_TRUE(disk.remove("a"));
  EXPECT_EQ(contents_after_power_losses(disk, "a"), (Texts{"-", "text"}));
  ASSERT_TRUE(disk.sync_directory(""));
  EXPECT_EQ(contents_after_power_losses(disk, "a"), Texts{"-"});
}

TEST(SimDisk, ADirectoryNeedsItsOwnName) {
  SimDisk disk({});
  ASSERT_TRUE(disk.make_directory("d"));
  ASSERT_TRUE(create(disk, "d/a")->sync());
  ASSERT_TRUE(disk.sync_directory("d"));
  EXPECT_EQ(contents_after_power_losses(disk, "d/a"), (Texts{"-", ""}));
  ASSERT_TRUE(disk.sync_directory(""));
  EXPECT_EQ(contents_after_power_losses(disk, "d/a"), Texts{""});
}

std::string listing(const SimDisk& disk) {
  std::string all;
  for (const std::string& path : disk.files()) all += path + " ";
  return all;
}

TEST(SimDisk, APrefixOfADirectorysChangesSurvives) {
  SimDisk disk({});
  create(disk, "a");
  create(disk, "b");
  ASSERT_TRUE(disk.remove("a"));
  create(disk, "c");
  const auto seen = after_power_losses(disk, listing);
  Texts states;
  for (const auto& [state, times] : seen) states.insert(state);
  EXPECT_EQ(states, (Texts{"", "a ", "a b ", "b ", "b c "}));
}

TEST(SimDisk, RenameWithinADirectoryIsAtomic) {
  SimDisk disk({});
  create_durable(disk, "old", "o");
  create_durable(disk, "new", "n");
  ASSERT_TRUE(disk.rename("new", "old"));
  EXPECT_EQ(text_in(disk, "old"), "n");
  const auto seen = after_power_losses(
      disk, [](const SimDisk& left) { return listing(left) + text_in(left, "old"); });
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_TRUE(seen.contains("new old o") && seen.contains("old n"));
  ASSERT_TRUE(disk.sync_directory(""));
  EXPECT_EQ(contents_after_power_losses(disk, "old"), Texts{"n"});
}

TEST(SimDisk, RenameBetweenDirectoriesNeedsBothSynced) {
  SimDisk disk({});
  ASSERT_TRUE(disk.make_directory("x"));
  ASSERT_TRUE(disk.make_directory("y"));
  ASSERT_TRUE(create(disk, "x/a")->sync());
  for (const char* path : {"", "x", "y"}) ASSERT_TRUE(disk.sync_directory(path));
  ASSERT_TRUE(disk.rename("x/a", "y/a"));
  const auto states = [&] {
    Texts found;
    for (const auto& [state, times] : after_power_losses(disk, listing)) found.insert(state);
    return found;
  };
  EXPECT_EQ(states(), (Texts{"", "x/a ", "y/a ", "x/a y/a "}));
  ASSERT_TRUE(disk.sync_directory("y"));
  EXPECT_EQ(states(), (Texts{"y/a ", "x/a y/a "}));
  ASSERT_TRUE(disk.sync_directory("x"));
  EXPECT_EQ(states(), Texts{"y/a "});
}

TEST(SimDisk, RenameMayOutrunTheBytes) {
  SimDisk disk({});
  create_durable(disk, "f", "old");
  ASSERT_TRUE(create(disk, "tmp")->write(0, bytes_of("new")));
  ASSERT_TRUE(disk.rename("tmp", "f"));
  ASSERT_TRUE(disk.sync_directory(""));
  const Texts seen = contents_after_power_losses(disk, "f");
  EXPECT_TRUE(seen.contains("")) << "section 7, number 5, would go unnoticed";
  EXPECT_FALSE(seen.contains("old"));
}

TEST(SimDisk, RemovedFileComesBackWithItsBytes) {
  SimDisk disk({});
  create_durable(disk, "a", "text");
  ASSERT_TRUE(disk.remove("a"));
  create_durable(disk, "b", "");  // makes the removal durable as well
  create(disk, "a");
  EXPECT_EQ(contents_after_power_losses(disk, "a"), (Texts{"-", ""}));
}

TEST(SimDisk, KillKeepsAllThatTheKernelHas) {
  SimDisk disk({});
  const std::string boot = disk.boot_id();
  ASSERT_TRUE(create(disk, "a")->write(0, bytes_of("text")));
  (*disk.make_staging("s", kBlockSize))->bytes()[5] = std::byte{5};
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    auto left = disk.clone_after_process_kill(seed);
    EXPECT_EQ(text_in(*left, "a"), "text");
    EXPECT_EQ((*left->find_staging("s"))->bytes()[5], std::byte{5});
  }
  disk.restart(CrashKind::kProcessKill);
  EXPECT_EQ(text_in(disk, "a"), "text");
  EXPECT_EQ(disk.boot_id(), boot);
  EXPECT_EQ(contents_after_power_losses(disk, "a"), (Texts{"-", "", "text", std::string(4, '\0')}))
      << "a kill makes nothing durable";
}

TEST(SimDisk, KillLeavesDurableWritesUnderWayToChance) {
  SimDisk disk({.sector_size = 512});
  auto file = create_durable(disk, "a", std::string(kBlockSize, 'o'));
  Blocks blocks(1, 'd');
  file->write_durably(0, blocks.bytes(), ignore());
  std::set<std::string> seen;
  for (uint64_t seed = 0; seed < kSeeds; ++seed)
    seen.insert(letters(text_in(*disk.clone_after_process_kill(seed), "a"), 512));
  EXPECT_TRUE(seen.contains("oooooooo"));
  EXPECT_TRUE(seen.contains("dddddddd"));
  EXPECT_GT(seen.size(), 20u);
}

TEST(SimDisk, PowerLossTakesStagingAndBootId) {
  SimDisk disk({});
  const std::string boot = disk.boot_id();
  auto memory = disk.make_staging("s", kBlockSize);
  disk.restart(CrashKind::kPowerLoss);
  EXPECT_EQ(disk.find_staging("s").error().code, ENOENT);
  EXPECT_NE(disk.boot_id(), boot);
  (*memory)->bytes()[0] = std::byte{1};  // harmless
}

TEST(SimDisk, StagingOnTheDiskLosesPages) {
  SimDisk disk({.staging_on_disk = true});
  auto memory = disk.make_staging("s", 2 * kBlockSize);
  std::memset((*memory)->bytes().data(), 's', 2 * kBlockSize);
  const auto seen = after_power_losses(disk, [](SimDisk& left) {
    const auto bytes = (*left.find_staging("s"))->bytes();
    return letters(text_of({bytes.begin(), bytes.end()}), kBlockSize);
  });
  EXPECT_EQ(seen.size(), 4u);
}

TEST(SimDisk, StagingOfAnotherSizeIsNew) {
  SimDisk disk({});
  EXPECT_EQ(disk.make_staging("s", 1).error().code, EINVAL);
  (*disk.make_staging("s", kBlockSize))->bytes()[0] = std::byte{1};
  EXPECT_EQ((*disk.make_staging("s", kBlockSize))->bytes()[0], std::byte{1});
  EXPECT_EQ((*disk.make_staging("s", 2 * kBlockSize))->bytes()[0], std::byte{0});
  ASSERT_TRUE(disk.remove_staging("s"));
  ASSERT_TRUE(disk.remove_staging("s"));
  EXPECT_EQ(disk.find_staging("s").error().code, ENOENT);
}

TEST(SimDisk, CutStopsTheWorldBeforeTheNthOperation) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", "old");
  const uint64_t before = disk.operations();
  disk.cut_at(2);
  ASSERT_TRUE(file->write(0, bytes_of("new")));
  EXPECT_EQ(read_all(*file), "new") << "observations are not counted";
  EXPECT_EQ(file->sync().error().code, EIO);
  EXPECT_FALSE(disk.powered());
  EXPECT_EQ(disk.operations(), before + 1);
  std::vector<std::byte> bytes(3);
  EXPECT_EQ(file->read(0, bytes).error().code, EIO);
  EXPECT_EQ(file->write(0, bytes_of("x")).error().code, EIO);
  EXPECT_EQ(file->info().error().code, EIO);
  EXPECT_EQ(disk.open("a", OpenMode::kRead).error().code, EIO);
  EXPECT_EQ(disk.list("").error().code, EIO);
  EXPECT_EQ(disk.remove("a").error().code, EIO);
  EXPECT_EQ(disk.lock().error().code, EIO);
  EXPECT_EQ(disk.space().error().code, EIO);
  EXPECT_EQ(contents_after_power_losses(disk, "a"), (Texts{"old", "new"}));
  disk.restart(CrashKind::kPowerLoss);
  EXPECT_TRUE(disk.powered());
  EXPECT_TRUE(disk.open("a", OpenMode::kRead));
}

TEST(SimDisk, CutAtACompletionLeavesTheWriteToChance) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", std::string(kBlockSize, 'o'));
  Blocks blocks(1, 'd');
  int outcome = 0;
  file->write_durably(0, blocks.bytes(), keep(outcome));
  disk.cut_at(1);
  EXPECT_TRUE(disk.step());
  EXPECT_EQ(outcome, EIO);
  EXPECT_FALSE(disk.powered());
  EXPECT_EQ(contents_after_power_losses(disk, "a").size(), 2u);
  std::set<std::string> after_kills;
  for (uint64_t seed = 0; seed < kSeeds; ++seed)
    after_kills.insert(text_in(*disk.clone_after_process_kill(seed), "a"));
  EXPECT_EQ(after_kills.size(), 2u);
}

TEST(SimDisk, KillAtTheCutKeepsStagingOfThatMoment) {
  SimDisk disk({});
  auto memory = disk.make_staging("s", kBlockSize);
  (*memory)->bytes()[0] = std::byte{1};
  disk.cut_at(1);
  EXPECT_FALSE(disk.make_directory("d"));
  (*memory)->bytes()[0] = std::byte{2};
  disk.restart(CrashKind::kProcessKill);
  EXPECT_EQ((*disk.find_staging("s"))->bytes()[0], std::byte{1});
}

TEST(SimDisk, WhatIsFromBeforeARestartIsDead) {
  for (const CrashKind kind : {CrashKind::kPowerLoss, CrashKind::kProcessKill}) {
    SimDisk disk({});
    auto file = create_durable(disk, "a", "text");
    auto lock = disk.lock();
    ASSERT_TRUE(lock);
    EXPECT_EQ(disk.lock().error().code, EBUSY);
    Blocks blocks(1, 'd');
    int before = 0;
    file->write_durably(0, blocks.bytes(), keep(before));
    disk.restart(kind);
    EXPECT_EQ(file->write(0, bytes_of("x")).error().code, EIO);
    EXPECT_EQ(file->sync().error().code, EIO);
    int after = 0;
    file->write_durably(0, blocks.bytes(), keep(after));
    while (disk.step()) continue;
    EXPECT_EQ(before, EIO);
    EXPECT_EQ(after, EIO);
    auto next = disk.lock();
    ASSERT_TRUE(next);
    lock->reset();
    EXPECT_EQ(disk.lock().error().code, EBUSY) << "a dead lock released a living one";
  }
}

TEST(SimDisk, WaitRunsCompletionsWithTheLockReleased) {
  SimDisk disk({});
  auto file = create(disk, "a");
  Blocks blocks(1, 'd');
  std::mutex mutex;
  std::condition_variable changed;
  int ended = 0;
  std::function<void(const Status&)> next = [&](const Status&) {
    std::lock_guard guard(mutex);
    if (++ended < 3) file->write_durably(0, blocks.bytes(), next);
  };
  file->write_durably(0, blocks.bytes(), next);
  std::unique_lock lock(mutex);
  disk.wait(lock, changed, [&] { return ended == 3; });
  EXPECT_TRUE(lock.owns_lock());
  EXPECT_EQ(ended, 3);
}

TEST(SimDisk, WaitEndsWithoutPower) {
  SimDisk disk({});
  auto file = create(disk, "a");
  Blocks blocks(1, 'd');
  int before = 0;
  int after = 0;
  file->write_durably(0, blocks.bytes(), keep(before));
  disk.cut_at(1);
  file->write_durably(0, blocks.bytes(), keep(after));
  std::mutex mutex;
  std::condition_variable changed;
  std::unique_lock lock(mutex);
  disk.wait(lock, changed, [&] { return before != -1 && after != -1; });
  EXPECT_EQ(before, EIO);
  EXPECT_EQ(after, EIO);
}

TEST(SimDiskDeathTest, WaitingForEverIsABug) {
  SimDisk disk({});
  std::mutex mutex;
  std::condition_variable changed;
  EXPECT_DEATH(
      {
        std::unique_lock lock(mutex);
        disk.wait(lock, changed, [] { return false; });
      },
      "may_become_ready");
}

TEST(SimDisk, FaultsSeeEveryOperation) {
  SimDisk disk({});
  std::vector<Operation> seen;
  disk.set_fault([&](const Operation& operation) {
    seen.push_back(operation);
    return 0;
  });
  auto file = create(disk, "a");
  ASSERT_TRUE(file->write(3, bytes_of("text")));
  std::vector<std::byte> bytes(2);
  ASSERT_TRUE(file->read(1, bytes));
  ASSERT_TRUE(file->sync());
  ASSERT_EQ(seen.size(), 4u);
  EXPECT_EQ(seen[1].kind, OperationKind::kWrite);
  EXPECT_EQ(seen[1].path, "a");
  EXPECT_EQ(seen[1].offset, 3u);
  EXPECT_EQ(seen[1].length, 4u);
  EXPECT_EQ(seen[1].index, 1u);
  EXPECT_EQ(seen[2].kind, OperationKind::kRead);
  EXPECT_EQ(seen[2].index, 0u);
  EXPECT_EQ(seen[3].index, 2u);
}

int fail_sync(const Operation& operation) {
  return operation.kind == OperationKind::kSync ? EIO : 0;
}

TEST(SimDisk, BytesOfAFailedSyncAreLostForAllLaterSyncs) {
  Texts seen;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SimDisk disk({.seed = seed});
    auto file = create_durable(disk, "a", "old");
    ASSERT_TRUE(file->write(0, bytes_of("new")));
    disk.set_fault(fail_sync);
    EXPECT_EQ(file->sync().error().code, EIO);
    disk.set_fault({});
    ASSERT_TRUE(file->sync());
    EXPECT_EQ(read_all(*file), "new");
    const Texts left = contents_after_power_losses(disk, "a");
    EXPECT_EQ(left.size(), 1u);
    seen.insert(left.begin(), left.end());
  }
  EXPECT_EQ(seen, (Texts{"old", "new"}));
}

TEST(SimDisk, FailedWritesMayGetSomewhere) {
  Texts seen;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SimDisk disk({.seed = seed});
    auto file = create(disk, "a");
    disk.set_fault([](const Operation& operation) {
      return operation.kind == OperationKind::kWrite ? ENOSPC : 0;
    });
    EXPECT_EQ(file->write(0, bytes_of("abc")).error().code, ENOSPC);
    seen.insert(read_all(*file));
  }
  EXPECT_EQ(seen, (Texts{"", "a", "ab", "abc"}));
}

TEST(SimDisk, FailedDurableWritesMayGetSomewhere) {
  Texts seen;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    SimDisk disk({.seed = seed});
    auto file = create_durable(disk, "a", std::string(2 * kBlockSize, 'o'));
    disk.set_fault([](const Operation& operation) {
      return operation.kind == OperationKind::kCompletion ? EIO : 0;
    });
    Blocks blocks(2, 'd');
    int outcome = 0;
    file->write_durably(0, blocks.bytes(), keep(outcome));
    disk.step();
    EXPECT_EQ(outcome, EIO);
    seen.insert(letters(read_all(*file), kBlockSize));
  }
  EXPECT_EQ(seen, (Texts{"oo", "od", "do", "dd"}));
}

TEST(SimDisk, FullDiskRefusesWrites) {
  SimDisk disk({.capacity = 4 * kBlockSize});
  auto file = create(disk, "a");
  const std::string block(kBlockSize, 'x');
  for (uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(file->write(i * kBlockSize, bytes_of(block)));
  EXPECT_EQ(disk.space()->total, 4 * kBlockSize);
  EXPECT_EQ(disk.space()->available, kBlockSize);
  Blocks blocks(1, 'd');
  int first = 0;
  int second = 0;
  file->write_durably(3 * kBlockSize, blocks.bytes(), keep(first));
  file->write_durably(4 * kBlockSize, blocks.bytes(), keep(second));
  while (disk.step()) continue;
  EXPECT_EQ(first, 0);
  EXPECT_EQ(second, ENOSPC) << "the write before it had taken the last block";
  EXPECT_EQ(file->write(4 * kBlockSize, bytes_of(block)).error().code, ENOSPC);
  EXPECT_TRUE(file->write(0, bytes_of(block))) << "overwriting takes no space";
  ASSERT_TRUE(file->punch(0, kBlockSize));
  EXPECT_EQ(disk.space()->available, kBlockSize);
  ASSERT_TRUE(disk.remove("a"));
  EXPECT_EQ(disk.space()->available, kBlockSize) << "an open file keeps its space";
  file.reset();
  EXPECT_EQ(disk.space()->available, 4 * kBlockSize);
}

TEST(SimDisk, DamageIsThereBeforeAndAfterACrash) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", "abc");
  ASSERT_TRUE(disk.corrupt("a", 1, bytes_of("X")));
  ASSERT_TRUE(disk.flip_bit("a", 2 * 8 + 5));  // c becomes C
  EXPECT_EQ(read_all(*file), "aXC");
  EXPECT_EQ(contents_after_power_losses(disk, "a"), Texts{"aXC"});
  ASSERT_TRUE(disk.truncate("a", 1));
  EXPECT_EQ(contents_after_power_losses(disk, "a"), Texts{"a"});
  ASSERT_TRUE(disk.erase("a"));
  EXPECT_EQ(contents_after_power_losses(disk, "a"), Texts{"-"});
  EXPECT_EQ(disk.flip_bit("a", 0).error().code, ENOENT);
}

TEST(SimDisk, ClonesAreIndependent) {
  SimDisk disk({});
  auto file = create_durable(disk, "a", "old");
  auto left = disk.clone_after_power_loss(1);
  ASSERT_TRUE((*left->open("a", OpenMode::kReadWrite))->write(0, bytes_of("LEFT")));
  EXPECT_EQ(read_all(*file), "old");
  ASSERT_TRUE(file->write(0, bytes_of("here")));
  EXPECT_EQ(text_in(*left, "a"), "LEFT");
  EXPECT_EQ(left->in_flight(), 0u);
}

// A run with a bit of everything; its trace.
std::string run(uint64_t seed) {
  SimDisk disk({.seed = seed, .sector_size = 512});
  auto file = create_durable(disk, "a", std::string(8 * kBlockSize, 'o'));
  Blocks blocks(2, 'd');
  std::string trace;
  for (uint64_t i = 0; i < 4; ++i)
    file->write_durably(i * 2 * kBlockSize, blocks.bytes(),
                        [&trace, i](const Status&) { trace += std::to_string(i); });
  disk.step();
  disk.step();
  create(disk, "b");
  disk.restart(CrashKind::kPowerLoss);
  return trace + listing(disk) + text_in(disk, "a");
}

TEST(SimDisk, OneSeedOneOutcome) {
  std::set<std::string> outcomes;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    outcomes.insert(run(seed));
    EXPECT_EQ(run(seed), run(seed));
  }
  EXPECT_GT(outcomes.size(), 10u);
}

}  // namespace
}  // namespace valfs::storage
