// The store as a map from keys to values.
#include "engine/key_value.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <map>
#include <random>
#include <thread>

#include "tests/support/sim_store.h"

namespace valfs::test {
namespace {

using namespace std::chrono_literals;
using storage::SimDisk;

constexpr size_t kThreshold = 32 * 1024;  // of small_options()

struct Volume {
  Volume() : store(must_open(disk, options)), values(*store) {}

  Bytes get(std::string_view key) {
    auto value = values.get(key);
    EXPECT_TRUE(value) << value.error().what;
    return value ? *value : Bytes{};
  }
  // Files in bin/ once everything that is due has been done.
  size_t blob_files() {
    EXPECT_TRUE(store->sync());
    store->tick();
    size_t count = 0;
    for (const std::string& path : disk.files()) count += path.starts_with("bin/") ? 1 : 0;
    return count;
  }

  FakeClock clock;
  StoreOptions options = small_options(clock);
  SimDisk disk{{.seed = 3, .capacity = 1 << 30}};
  std::unique_ptr<Store> store;
  KeyValue values;
};

// Hands out `bytes` in pieces, then what `end` says.
KeyValue::Source pieces(const Bytes& bytes, size_t piece, int error = 0) {
  return [&bytes, piece, error, at = size_t{0}]() mutable -> Result<KeyValue::Bytes> {
    const auto next = std::span(bytes).subspan(at, std::min(piece, bytes.size() - at));
    at += next.size();
    if (next.empty() && error != 0) return fail(error, "the source has failed");
    return next;
  };
}

Bytes streamed(KeyValue& values, std::string_view key, size_t piece) {
  Bytes all;
  const auto read = values.get_stream(
      key,
      [&](KeyValue::Bytes bytes) -> Status {
        EXPECT_LE(bytes.size(), piece);
        all.insert(all.end(), bytes.begin(), bytes.end());
        return {};
      },
      piece);
  EXPECT_TRUE(read) << read.error().what;
  return all;
}

TEST(KeyValue, PutGetRemove) {
  Volume volume;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1000}, kThreshold, kThreshold + 1}) {
    const std::string key = "key " + std::to_string(size);
    ASSERT_TRUE(volume.values.put(key, pattern(size, size)));
    EXPECT_EQ(volume.get(key), pattern(size, size));
    EXPECT_EQ(volume.values.size(key), size);
  }
  EXPECT_EQ(volume.values.count(), 5u);
  ASSERT_TRUE(volume.values.remove("key 1"));
  EXPECT_EQ(volume.values.get("key 1").error().code, ENOENT);
  EXPECT_EQ(volume.values.remove("key 1").error().code, ENOENT);
  EXPECT_FALSE(volume.values.contains("key 1"));
  EXPECT_EQ(check_index(*volume.store), "");
}

TEST(KeyValue, RangesEndWhereTheValueEnds) {
  Volume volume;
  const Bytes value = pattern(1, 5000);
  ASSERT_TRUE(volume.values.put("k", value));
  Bytes into(1000);
  EXPECT_EQ(volume.values.get("k", 4500, into), 500u);
  EXPECT_TRUE(same_bytes(std::span(into).first(500), std::span(value).subspan(4500)));
  EXPECT_EQ(volume.values.get("k", 5000, into), 0u);
}

// Every size before and after, so that each way of overwriting is taken.
TEST(KeyValue, OverwritesAnySizeByAnyOther) {
  Volume volume;
  const std::vector<size_t> sizes{0, 1, 700, 701, kThreshold, kThreshold + 1, 3 * kThreshold};
  uint64_t seed = 0;
  for (const size_t before : sizes) {
    for (const size_t after : sizes) {
      ASSERT_TRUE(volume.values.put("k", pattern(++seed, before)));
      ASSERT_TRUE(volume.values.put("k", pattern(++seed, after)));
      ASSERT_EQ(volume.get("k"), pattern(seed, after)) << before << " by " << after;
      ASSERT_EQ(volume.values.size("k"), after);
    }
  }
  EXPECT_EQ(volume.values.count(), 1u);
  EXPECT_EQ(volume.store->stats().inodes, 2u + (volume.blob_files() > 0 ? 1 : 0));
  EXPECT_EQ(check_index(*volume.store), "");
}

// What it costs, in bytes of log: headers are 72 bytes, attributes 88, a payload's CRC 4 (or 8).
TEST(KeyValue, AValueInTheLogIsOverwrittenByOneRecord) {
  Volume volume;
  ASSERT_TRUE(volume.values.put("k", pattern(1, 1000)));
  const uint64_t first = volume.store->stats().live_bytes;
  ASSERT_TRUE(volume.values.put("k", pattern(2, 1000)));
  EXPECT_EQ(volume.store->stats().live_bytes, first);
  const auto used = [&] { return volume.store->stats().dead_bytes; };
  ASSERT_TRUE(volume.store->sync());
  EXPECT_GE(used(), 1000u);
  const log::ObjectId inode = look_up(*volume.store, "k");
  ASSERT_TRUE(volume.values.put("k", pattern(3, 10)));
  EXPECT_EQ(look_up(*volume.store, "k"), inode);
}

TEST(KeyValue, F17_KeysOfAnyBytesUpToTheLimit) {
  Volume volume;
  volume.store.reset();
  volume.options.slot_size = 256 * kKiB;
  volume.disk.restart(storage::CrashKind::kPowerLoss);
  auto store = must_open(volume.disk, volume.options);
  KeyValue values(*store);
  const std::string any("\0/\xff\n..", 6);
  const std::vector<std::string> keys{
      "a", any, ".", "..", "/", std::string(256, 'x'), std::string(KeyValue::kLongestKey, 'y')};
  for (const std::string& key : keys) {
    ASSERT_TRUE(values.put(key, pattern(key.size(), 100)));
    ASSERT_TRUE(values.put(key, pattern(key.size(), 90)));
  }
  EXPECT_EQ(values.put("", pattern(1, 1)).error().code, EINVAL);
  const auto refused = values.put(std::string(KeyValue::kLongestKey + 1, 'z'), pattern(1, 1));
  EXPECT_EQ(refused.error().code, EINVAL);
  EXPECT_NE(refused.error().what.find("key too long"), std::string::npos);
  ASSERT_TRUE(values.sync());
  store.reset();
  volume.disk.restart(storage::CrashKind::kPowerLoss);
  store = must_open(volume.disk, volume.options);
  KeyValue again(*store);
  for (const std::string& key : keys) EXPECT_EQ(*again.get(key), pattern(key.size(), 90));
  EXPECT_EQ(again.count(), keys.size());
}

TEST(KeyValue, F11_F12_StreamsOfEverySize) {
  Volume volume;
  for (const size_t size :
       {size_t{0}, size_t{5}, kThreshold - 1, kThreshold, kThreshold + 1, 4 * kThreshold + 77}) {
    for (const size_t piece : {size_t{1000}, kThreshold, 10 * kThreshold}) {
      const Bytes value = pattern(size + piece, size);
      const auto put = volume.values.put_stream("k", pieces(value, piece));
      ASSERT_TRUE(put) << put.error().what;
      ASSERT_EQ(volume.get("k"), value) << size << " in pieces of " << piece;
      ASSERT_EQ(streamed(volume.values, "k", 1777), value);
      EXPECT_EQ(volume.blob_files(), size > kThreshold ? 1u : 0u) << size;
    }
  }
}

// A long value is never gathered: between two pieces what was given before is in bin/, under no
// name. Not a byte of it goes through the log.
TEST(KeyValue, F11_ALongStreamGoesPieceByPiece) {
  Volume volume;
  ASSERT_TRUE(volume.values.put("k", pattern(1, 10)));
  const Bytes piece = pattern(2, 20'000);
  const uint64_t live = volume.store->stats().live_bytes;
  int count = 0;
  const auto put = volume.values.put_stream("k", [&]() -> Result<KeyValue::Bytes> {
    EXPECT_EQ(volume.get("k"), pattern(1, 10));
    if (count > 2) {
      EXPECT_GE(volume.store->stats().blob_bytes, piece.size() * (count - 1));
      EXPECT_LT(volume.store->stats().live_bytes, live + 2000);
    }
    if (count++ == 12) return KeyValue::Bytes{};
    return KeyValue::Bytes(piece);
  });
  ASSERT_TRUE(put) << put.error().what;
  EXPECT_EQ(volume.values.size("k"), 12 * piece.size());
}

TEST(KeyValue, F11_AnErrorOfTheSourceLeavesNoTrace) {
  Volume volume;
  ASSERT_TRUE(volume.values.put("old", pattern(1, 500)));
  ASSERT_TRUE(volume.store->sync());
  const auto inodes = volume.store->stats().inodes;
  for (const size_t size : {size_t{0}, size_t{100}, kThreshold + 1, 5 * kThreshold}) {
    const Bytes value = pattern(2, size);
    for (const char* key : {"old", "new"}) {
      EXPECT_EQ(volume.values.put_stream(key, pieces(value, 3000, ECONNRESET)).error().code,
                ECONNRESET);
    }
    EXPECT_EQ(volume.get("old"), pattern(1, 500));
    EXPECT_FALSE(volume.values.contains("new"));
    EXPECT_EQ(volume.store->stats().inodes, inodes);
    EXPECT_EQ(volume.blob_files(), 0u);
  }
}

// A crash in the middle of a stream: the next mount finds neither name, inode nor file.
TEST(KeyValue, F37_AStreamThatWasCutLeavesNoTrace) {
  Volume volume;
  const Bytes piece = pattern(2, 30'000);
  std::unique_ptr<SimDisk> killed;
  int count = 0;
  ASSERT_TRUE(volume.values.put_stream("k", [&]() -> Result<KeyValue::Bytes> {
    if (count == 4) {
      EXPECT_TRUE(volume.store->sync());
      killed = volume.disk.clone_after_process_kill(1);
    }
    return count++ == 5 ? KeyValue::Bytes{} : KeyValue::Bytes(piece);
  }));
  const auto store = must_open(*killed, volume.options);
  EXPECT_EQ(KeyValue(*store).count(), 0u);
  EXPECT_EQ(store->stats().inodes, 1u);
  EXPECT_TRUE(store->sync());
  store->tick();
  for (const std::string& path : killed->files()) EXPECT_FALSE(path.starts_with("bin/")) << path;
}

TEST(KeyValue, AReaderKeepsItsValue) {
  Volume volume;
  for (const size_t size : {size_t{9000}, 3 * kThreshold}) {
    for (const size_t by : {size_t{9000}, size_t{3}, 2 * kThreshold}) {
      ASSERT_TRUE(volume.values.put("k", pattern(1, size)));
      Bytes all;
      bool replaced = false;
      ASSERT_TRUE(volume.values.get_stream(
          "k",
          [&](KeyValue::Bytes bytes) -> Status {
            all.insert(all.end(), bytes.begin(), bytes.end());
            if (!std::exchange(replaced, true)) return volume.values.put("k", pattern(2, by));
            return {};
          },
          1000));
      EXPECT_EQ(all, pattern(1, size));
      EXPECT_EQ(volume.get("k"), pattern(2, by));
      EXPECT_EQ(volume.blob_files(), by > kThreshold ? 1u : 0u);
    }
  }
  ASSERT_TRUE(volume.values.put("k", pattern(1, 5000)));
  Bytes all;
  ASSERT_TRUE(volume.values.get_stream(
      "k",
      [&](KeyValue::Bytes bytes) -> Status {
        all.insert(all.end(), bytes.begin(), bytes.end());
        return all.size() == bytes.size() ? volume.values.remove("k") : Status{};
      },
      1000));
  EXPECT_EQ(all, pattern(1, 5000));
  EXPECT_EQ(volume.store->stats().inodes, 1u);
  EXPECT_EQ(check_index(*volume.store), "");
}

TEST(KeyValue, ASinkMayStopTheReading) {
  Volume volume;
  ASSERT_TRUE(volume.values.put("k", pattern(1, 5000)));
  int calls = 0;
  const auto read = volume.values.get_stream(
      "k", [&](KeyValue::Bytes) -> Status { return ++calls, fail(EPIPE, "enough"); }, 1000);
  EXPECT_EQ(read.error().code, EPIPE);
  EXPECT_EQ(calls, 1);
}

TEST(KeyValue, KeysComeInTheOrderOfTheirMaking) {
  Volume volume;
  std::vector<std::string> expected;
  for (int i = 0; i < 1000; i++) {
    expected.push_back("k" + std::to_string(i * 7919 % 1000));
    ASSERT_TRUE(volume.values.put(expected.back(), pattern(i, i % 50)));
  }
  ASSERT_TRUE(make_directory(*volume.store, "a directory"));
  ASSERT_TRUE(volume.values.put(expected[500], pattern(1, 40)));
  std::vector<std::string> seen;
  volume.values.for_each([&](std::string_view key, uint64_t) {
    seen.emplace_back(key);
    return true;
  });
  EXPECT_EQ(seen, expected);
  int visits = 0;
  volume.values.for_each([&](std::string_view, uint64_t) { return ++visits < 3; });
  EXPECT_EQ(visits, 3);
}

TEST(KeyValue, WhatIsNoValueIsLeftAlone) {
  Volume volume;
  ASSERT_TRUE(make_directory(*volume.store, "d"));
  EXPECT_EQ(volume.values.put("d", pattern(1, 1)).error().code, EISDIR);
  EXPECT_EQ(volume.values.put("d", pattern(1, 2 * kThreshold)).error().code, EISDIR);
  EXPECT_EQ(volume.values.get("d").error().code, EISDIR);
  EXPECT_EQ(volume.values.remove("d").error().code, EISDIR);
  EXPECT_EQ(volume.blob_files(), 0u);
  // A value with two names is changed under one of them only.
  ASSERT_TRUE(volume.values.put("a", pattern(1, 100)));
  ASSERT_TRUE(link(*volume.store, "a", "b"));
  ASSERT_TRUE(volume.values.put("a", pattern(2, 100)));
  EXPECT_EQ(volume.get("b"), pattern(1, 100));
  EXPECT_EQ(volume.get("a"), pattern(2, 100));
  EXPECT_EQ(check_index(*volume.store), "");
}

// Every operation that the disk sees is one before which the power may go.
TEST(KeyValue, P5_OverwritingIsAtomic) {
  Volume volume;
  const std::vector<size_t> sizes{3000, 100, 2 * kThreshold, 700, 3 * kThreshold};
  for (size_t i = 0; i + 1 < sizes.size(); i++) {
    const Bytes old = pattern(i, sizes[i]);
    const Bytes fresh = pattern(i + 1, sizes[i + 1]);
    ASSERT_TRUE(volume.values.put("k", old));
    ASSERT_TRUE(volume.store->sync());
    std::vector<std::unique_ptr<SimDisk>> crashed;
    uint64_t seed = 0;
    volume.disk.set_fault([&](const storage::Operation& operation) {
      if (operation.kind >= storage::OperationKind::kOpen) return 0;
      crashed.push_back(volume.disk.clone_after_power_loss(++seed));
      crashed.push_back(volume.disk.clone_after_process_kill(seed));
      return 0;
    });
    ASSERT_TRUE(volume.values.put("k", fresh));
    volume.clock.advance(150ms);  // the log commits by itself, long before bytes in bin/ would
    volume.store->tick();
    crashed.push_back(volume.disk.clone_after_power_loss(++seed));
    ASSERT_TRUE(volume.store->sync());
    volume.disk.set_fault({});
    ASSERT_FALSE(crashed.empty());
    for (const auto& disk : crashed) {
      const auto store = must_open(*disk, volume.options);
      const auto found = KeyValue(*store).get("k");
      ASSERT_TRUE(found) << found.error().what;
      ASSERT_TRUE(same_bytes(*found, old) || same_bytes(*found, fresh)) << found->size();
      ASSERT_EQ(check_index(*store), "");
    }
  }
}

TEST(KeyValue, P1_F3_WhatHasReturnedSurvivesAKill) {
  Volume volume;
  std::mt19937_64 random(11);
  std::map<std::string, Bytes> model;
  for (int i = 0; i < 2000; i++) {
    const std::string key = "k" + std::to_string(random() % 50);
    if (random() % 4 == 0) {
      EXPECT_EQ(volume.values.remove(key).has_value(), model.erase(key) == 1);
    } else {
      const size_t most = random() % 20 == 0 ? 3 * kThreshold : 2000;
      model[key] = pattern(random(), random() % most);
      ASSERT_TRUE(volume.values.put(key, model[key]));
    }
    if (i % 400 != 399) continue;
    EXPECT_TRUE(volume.values.flush());
    const auto disk = volume.disk.clone_after_process_kill(i);
    const auto store = must_open(*disk, volume.options);
    KeyValue values(*store);
    ASSERT_EQ(values.count(), model.size());
    for (const auto& [name, bytes] : model) ASSERT_EQ(*values.get(name), bytes);
    ASSERT_EQ(check_index(*store), "");
  }
}

TEST(KeyValue, P8_F4_FlushTellsOfAFailedLog) {
  Volume volume;
  ASSERT_TRUE(volume.values.put("k", pattern(1, 1000)));
  EXPECT_TRUE(volume.values.flush());
  volume.disk.set_fault([](const storage::Operation& operation) {
    return operation.kind == storage::OperationKind::kWriteDurably ? EIO : 0;
  });
  EXPECT_EQ(volume.values.sync().error().code, EIO);
  volume.disk.set_fault({});
  EXPECT_EQ(volume.values.flush().error().code, EIO);
  EXPECT_EQ(volume.values.put("k", pattern(2, 1000)).error().code, EIO);
  EXPECT_EQ(volume.get("k"), pattern(1, 1000));
}

}  // namespace
}  // namespace valfs::test
