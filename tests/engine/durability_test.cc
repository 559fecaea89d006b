// Cases that random histories of small stores do not reach. Each was a hole in these tests: a bug
// planted there (tests/README.md, "Bug bank") went unseen.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "engine/log/group.h"
#include "engine/log/superblock.h"
#include "tests/support/tree_model.h"

namespace valfs::test {
namespace {

using storage::CrashKind;
using storage::SimDisk;

std::unique_ptr<Store> open_after(SimDisk& disk, CrashKind kind, std::unique_ptr<Store>& store,
                                  const StoreOptions& options) {
  store.reset();
  disk.restart(kind);
  return must_open(disk, options);
}

// Overwrites each group that holds a manifest.
void destroy_manifests(SimDisk& disk, const std::string& path) {
  const Bytes bytes = *disk.contents(path);
  log::LogFileHeader head;
  std::memcpy(&head, bytes.data(), sizeof head);
  const log::Salt salt{head.volume.salt(), head.file, head.epoch};
  for (uint64_t at = log::kFirstGroupOffset; at + log::kBlock <= bytes.size(); at += log::kBlock) {
    const auto rest = std::span(bytes).subspan(at);
    const auto header = log::decode_group_header(rest, salt, at);
    if (!header) continue;
    const auto contents = log::read_group(rest, *header, salt, at);
    for (const auto& entry : contents.records) {
      if (entry.found.record.type != log::RecordType::kManifest) continue;
      ASSERT_TRUE(disk.corrupt(path, at, pattern(at, header->length)));
      break;
    }
  }
}

// While four groups are on their way the next one gathers company: whoever syncs then waits for it.
TEST(Durability, P2_SyncWaitsForAGroupThatIsStillOpen) {
  StoreOptions options = small_options();
  options.slots = 8;
  for (uint64_t seed = 1; seed <= 20; seed++) {
    SimDisk disk({.seed = seed});
    auto store = must_open(disk, options);
    constexpr int kGroups = 6;
    int done = 0;
    for (int i = 0; i < kGroups; i++) {
      ASSERT_TRUE(put(*store, "f" + std::to_string(i), pattern(i, 500)));
      store->sync(0, [&, i](const Status& status) {
        EXPECT_TRUE(status);
        EXPECT_EQ(done++, i);
        const auto left = disk.clone_after_power_loss(seed);
        const auto value = get(*must_open(*left, options), "f" + std::to_string(i));
        EXPECT_TRUE(value && *value == pattern(i, 500)) << i;
      });
    }
    EXPECT_EQ(disk.in_flight(), 4u);
    while (disk.step()) {
    }
    EXPECT_EQ(done, kGroups);
  }
}

// A large value that could not be flushed keeps an unmount from being called a success.
TEST(Durability, P8_CloseTellsOfALargeValueThatIsNotDurable) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(put(*store, "a", pattern(1, 90'000)));
  ASSERT_TRUE(store->sync());
  ASSERT_TRUE(append(*store, "a", pattern(2, 1000)));
  disk.set_fault([](const storage::Operation& operation) {
    const bool blob = operation.path.rfind("bin/", 0) == 0;
    return blob && operation.kind == storage::OperationKind::kSync ? EIO : 0;
  });
  EXPECT_FALSE(store->close());
}

// Of one value, and of all of them; of whoever waits, and of who is called back.
TEST(Durability, P2_SyncTakesTheBytesOfLargeValuesAlong) {
  for (uint64_t seed = 1; seed <= 40; seed++) {
    SimDisk disk({.seed = seed});
    auto store = must_open(disk, small_options());
    ASSERT_TRUE(put(*store, "a", pattern(seed, 90'000)));
    ASSERT_TRUE(store->sync());
    const auto inode = look_up(*store, "a");
    ASSERT_NE(attributes_of(*store, inode).blob, 0u);
    const Bytes written = pattern(seed + 100, 70'000);
    ASSERT_TRUE(write(*store, "a", 5000, written));
    const log::ObjectId whose = seed % 2 == 0 ? inode : 0;
    if (seed % 4 < 2) {
      ASSERT_TRUE(store->sync(whose));
    } else {
      bool done = false;
      store->sync(whose, [&](const Status& status) { done = status.has_value(); });
      while (!done && disk.step()) {
      }
      ASSERT_TRUE(done);
    }
    store = open_after(disk, CrashKind::kPowerLoss, store, small_options());
    const auto value = get(*store, "a");
    ASSERT_TRUE(value) << value.error().what;
    EXPECT_TRUE(same_bytes(std::span(*value).subspan(5000, written.size()), written)) << seed;
  }
}

TEST(Durability, P2_ASuperblockThatWasMadeIsThere) {
  for (uint64_t seed = 1; seed <= 5; seed++) {
    SimDisk disk({.seed = seed});
    log::Superblock superblock;
    ASSERT_TRUE(log::create_superblock(disk, superblock));
    disk.restart(CrashKind::kPowerLoss);
    EXPECT_TRUE(log::read_superblock(disk));
  }
}

// What bounds the time of a mount: a checkpoint that has returned is there after power loss.
TEST(Durability, F25_ACheckpointIsDurable) {
  for (uint64_t seed = 1; seed <= 10; seed++) {
    SimDisk disk({.seed = seed});
    auto store = must_open(disk, small_options());
    for (int i = 0; i < 3; i++) {
      ASSERT_TRUE(put(*store, "f" + std::to_string(i), pattern(seed, 3000)));
      ASSERT_TRUE(store->checkpoint());
    }
    store = open_after(disk, CrashKind::kPowerLoss, store, small_options());
    const auto stats = store->stats();
    EXPECT_TRUE(stats.used_checkpoint && !stats.used_older_checkpoint) << seed;
    EXPECT_EQ(stats.replayed_records, 0u);
    EXPECT_TRUE(store->recovery_warnings().empty());
  }
}

// A volume that was unmounted once is as good as any.
TEST(Durability, P1_AKillAfterACleanUnmount) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(put(*store, "a", pattern(1, 500)));
  ASSERT_TRUE(store->close());
  store.reset();
  store = must_open(disk, small_options());
  ASSERT_TRUE(put(*store, "b", pattern(2, 500)));
  store = open_after(disk, CrashKind::kProcessKill, store, small_options());
  const auto value = get(*store, "b");
  ASSERT_TRUE(value) << value.error().what;
  EXPECT_EQ(*value, pattern(2, 500));
}

// W10: nothing of an earlier mount parses as a later one's.
TEST(Durability, P3_EveryMountHasAnEpochOfItsOwn) {
  SimDisk disk({});
  uint64_t last = 0;
  std::unique_ptr<Store> store;
  for (const CrashKind kind : {CrashKind::kPowerLoss, CrashKind::kProcessKill,
                               CrashKind::kProcessKill, CrashKind::kPowerLoss}) {
    store = open_after(disk, kind, store, small_options());
    EXPECT_GT(store->stats().epoch, last);
    EXPECT_EQ(log::read_superblock(disk)->epoch, store->stats().epoch) << "not durable yet";
    last = store->stats().epoch;
  }
}

// What was read before a value was cut or punched must not be read again after it.
TEST(Durability, P0_TheCacheKeepsNothingThatWasDropped) {
  constexpr size_t kSize = 30'000;
  const auto zeros_in = [](const Bytes& bytes, size_t from, size_t to) {
    return std::all_of(bytes.begin() + static_cast<ptrdiff_t>(from),
                       bytes.begin() + static_cast<ptrdiff_t>(to),
                       [](std::byte byte) { return byte == std::byte{0}; });
  };
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  for (const char* name : {"cut", "punched"}) {
    ASSERT_TRUE(put(*store, name, pattern(1, kSize)));
    ASSERT_TRUE(store->sync());
    for (int reads = 0; reads < 3; reads++) ASSERT_TRUE(get(*store, name));
  }
  ASSERT_GT(store->stats().cache.hits, 0u);
  ASSERT_TRUE(truncate(*store, "cut", 100));
  ASSERT_TRUE(truncate(*store, "cut", kSize));
  EXPECT_TRUE(zeros_in(*get(*store, "cut"), 100, kSize));
  ASSERT_TRUE(punch(*store, "punched", 5000, 10'000));
  EXPECT_TRUE(zeros_in(*get(*store, "punched"), 5000, 15'000));
}

// What a mount cannot place may be of use to somebody.
TEST(Durability, P9_AFileThatIsNoLogFileIsSetAside) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(store->close());
  store.reset();
  const Bytes precious = pattern(7, 10'000);
  {
    const auto file = disk.open("wal/00/00/000000ff", storage::OpenMode::kCreate);
    ASSERT_TRUE(file);
    ASSERT_TRUE((*file)->write(0, precious));
    ASSERT_TRUE((*file)->sync());
    ASSERT_TRUE(disk.sync_directory("wal/00/00"));
  }
  store = must_open(disk, small_options());
  EXPECT_FALSE(store->recovery_warnings().empty());
  store = open_after(disk, CrashKind::kPowerLoss, store, small_options());
  const auto paths = disk.files();
  EXPECT_TRUE(std::any_of(paths.begin(), paths.end(), [&](const std::string& path) {
    return path.rfind("quarantine/", 0) == 0 && same_bytes(*disk.contents(path), precious);
  }));
}

// The records that named a blob are damaged: its bytes are all that is left of the value.
TEST(Durability, P9_ABlobWhoseNameIsDamagedStays) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  const Bytes value = pattern(1, 90'000);
  ASSERT_TRUE(put(*store, "a", value));
  ASSERT_TRUE(store->sync());
  const uint64_t blob = attributes_of(*store, look_up(*store, "a")).blob;
  ASSERT_NE(blob, 0u);
  for (uint64_t i = 0; i < 3; i++) {  // so that the damage is not the torn end of the log
    ASSERT_TRUE(put(*store, "b", pattern(i, 100)));
    ASSERT_TRUE(store->sync());
  }
  store.reset();
  disk.restart(CrashKind::kPowerLoss);
  const auto id = log::bytes_of(blob);
  for (const std::string& path : disk.files()) {
    if (path.rfind("wal/", 0) != 0) continue;
    const Bytes bytes = *disk.contents(path);
    auto at = bytes.begin();
    while ((at = std::search(at, bytes.end(), id.begin(), id.end())) != bytes.end()) {
      ASSERT_TRUE(disk.flip_bit(path, static_cast<uint64_t>(at++ - bytes.begin()) * 8 + 5));
    }
  }
  store = must_open(disk, small_options());
  EXPECT_GT(store->stats().damaged_groups, 0u);
  const auto paths = disk.files();
  EXPECT_TRUE(std::any_of(paths.begin(), paths.end(), [&](const std::string& path) {
    return path.rfind("bin/", 0) == 0 && same_bytes(*disk.contents(path), value);
  }));
}

// What was written first and is copied later is no younger for it: else a replay of all records
// would give the value the time of the write, and not the one that was set since.
TEST(Durability, P3_TimesOutliveCleaning) {
  constexpr Time kSet{2'000'000, 7};
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  for (uint64_t i = 0; i < 40; i++) {
    ASSERT_TRUE(put(*store, "f" + std::to_string(i), pattern(i, 9000)));
  }
  const log::ObjectId inode = look_up(*store, "f7");
  index::Attributes attributes = attributes_of(*store, inode);
  attributes.touch(kSet);
  {
    auto transaction = store->begin(Transaction::Size::of(1, 0, 0));
    ASSERT_TRUE(transaction);
    transaction->put(inode, attributes);
    transaction->commit(kSet);
  }
  for (uint64_t i = 0; i < 40; i++) {
    if (i != 7) {
      ASSERT_TRUE(put(*store, "f" + std::to_string(i), pattern(i, 9000)));
    }
  }
  ASSERT_TRUE(store->gc());
  ASSERT_GT(store->stats().copied_bytes, 9000u);
  ASSERT_TRUE(store->close());
  store.reset();
  for (const std::string& path : disk.files()) {
    if (path.rfind("checkpoint/", 0) == 0) {
      ASSERT_TRUE(disk.erase(path));
    }
  }
  store = must_open(disk, small_options());
  EXPECT_FALSE(store->stats().used_checkpoint);
  EXPECT_EQ(attributes_of(*store, inode).modified(), kSet);
  EXPECT_EQ(attributes_of(*store, inode).changed(), kSet);
  EXPECT_EQ(*get(*store, "f7"), pattern(7, 9000));
}

// A log file was freed, and what said so is damaged: nobody takes it for lost.
TEST(Durability, P9_AFreedLogFileIsNotMissed) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  for (uint64_t round = 0; round < 3; round++) {
    for (uint64_t i = 0; i < 40; i++) {
      ASSERT_TRUE(put(*store, "f" + std::to_string(i), pattern(round * 100 + i, 9000)));
    }
  }
  ASSERT_TRUE(store->gc());
  ASSERT_GT(store->stats().cleaned_files, 0u);
  store.reset();
  disk.restart(CrashKind::kPowerLoss);
  for (const std::string& path : disk.files()) {
    if (path.rfind("checkpoint/", 0) == 0) {
      ASSERT_TRUE(disk.erase(path));
    } else if (path.rfind("wal/", 0) == 0) {
      destroy_manifests(disk, path);
    }
  }
  const auto opened = open_store(disk, small_options());
  ASSERT_TRUE(opened) << opened.error().what;
  EXPECT_GT((*opened)->stats().damaged_groups, 0u);
}

// A blob is overwritten and grows, and of that only the records are durable: its size falls back to
// what was synced, not below.
TEST(Durability, P2_ABlobThatGrewIsNoShorterThanAtItsSync) {
  for (uint64_t seed = 1; seed <= 10; seed++) {
    SimDisk disk({.seed = seed});
    auto store = must_open(disk, small_options());
    const Bytes value = pattern(1, 100'000);
    ASSERT_TRUE(put(*store, "a", value));
    ASSERT_TRUE(store->sync());
    ASSERT_TRUE(store->checkpoint());
    ASSERT_TRUE(write(*store, "a", 0, pattern(2, 100)));
    ASSERT_TRUE(append(*store, "a", pattern(3, 5000)));
    ASSERT_TRUE(put(*store, "other", pattern(4, 100)));
    ASSERT_TRUE(sync(*store, "other"));  // the log, not the bytes of a
    store = open_after(disk, CrashKind::kPowerLoss, store, small_options());
    const auto found = get(*store, "a");
    ASSERT_TRUE(found) << found.error().what;
    ASSERT_GE(found->size(), value.size()) << seed;
    EXPECT_TRUE(std::equal(value.begin() + 100, value.end(), found->begin() + 100)) << seed;
  }
}

// Folding a value reads all of it: what cannot be read stays as it is.
TEST(Durability, P0_P9_FoldingDoesNotHideDamage) {
  SimDisk disk({});
  StoreOptions options = small_options();
  auto store = must_open(disk, options);
  const Bytes value = pattern(1, 20'000);
  ASSERT_TRUE(put(*store, "a", value));
  ASSERT_TRUE(store->sync());
  for (const std::string& path : disk.files()) {
    if (path.rfind("wal/", 0) != 0) continue;
    const Bytes bytes = *disk.contents(path);
    const auto at = std::search(bytes.begin(), bytes.end(), value.begin(), value.begin() + 64);
    if (at == bytes.end()) continue;
    ASSERT_TRUE(disk.flip_bit(path, (at - bytes.begin()) * 8 + 3));
  }
  store->drop_caches();
  ASSERT_FALSE(get(*store, "a"));
  for (uint64_t i = 0; i < 40; i++) {
    ASSERT_TRUE(write(*store, "a", 1000 + i % 10 * 1500, pattern(2 + i, 1000)));
  }
  store->drop_caches();
  Bytes start(1000);
  EXPECT_FALSE(store->read(look_up(*store, "a"), 0, start)) << "P0: damaged bytes pass for good";
}

}  // namespace
}  // namespace valfs::test
