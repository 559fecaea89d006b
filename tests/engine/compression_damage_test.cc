// F38: compressed records that are damaged, or that lie; what the tools make of them; crashes while
// they are made.
#include <gtest/gtest.h>

#include <cstring>

#include "engine/inspect/check.h"
#include "engine/inspect/salvage.h"
#include "engine/log/compression.h"
#include "tests/support/compressed.h"

namespace valfs::test {
namespace {

using log::Frames;
using log::FrameTable;
using log::Record;
using storage::CrashKind;
using storage::Operation;
using storage::OperationKind;
using storage::SimDisk;

constexpr Compression kBoth[] = {Compression::kLz4, Compression::kZstd};

// A copy as the cleaner makes it.
struct Made {
  Made(Compression algorithm, uint64_t length) : raw(pattern(compressible(length), length)) {
    const auto from = log::bytes_of(position);
    record.type = log::RecordType::kExtent;
    record.flags = log::kCopy;
    record.id = 99;
    record.name = "name";
    record.sequence = 7;
    record.body = from;
    record.payload = raw;
    packed = *log::pack(record, position, algorithm);
    record.flags |= log::kCompressed;
    record.body = packed.body;
    record.payload = packed.payload;
  }
  const log::Position position = log::Position::at(3, 4096);
  Bytes raw;
  log::Packed packed;
  Record record;
};

TEST(Compression, F38_WhatARecordTakesIsSharedOutExactly) {
  for (const Compression algorithm : kBoth) {
    for (const uint64_t length : {1024, 5000, 65'536, 65'537, 1'000'003, 3'333'333, 4'194'304}) {
      const Made made(algorithm, length);
      const uint64_t total = made.record.total_length();
      const uint64_t rate = log::rate_for(total, length);
      EXPECT_LE(rate, log::kHighestRate);
      EXPECT_EQ(log::share(rate, length), total) << length;
      const auto frames = Frames::read(made.record.body, made.record.payload.size());
      ASSERT_TRUE(frames);
      EXPECT_EQ(frames->raw_length(), length);
      // Padding is little.
      EXPECT_LE(made.record.body.size(), sizeof(FrameTable) + frames->count() * 4 + 64);
    }
  }
}

// Each byte of body and payload changed, with no checksum in the way: no crash, no byte more than
// was asked for, and a length that is wrong never goes unnoticed.
TEST(Compression, F38_FramesThatLie) {
  uint64_t refused = 0;
  for (const Compression algorithm : kBoth) {
    const Made made(algorithm, 66'000);
    for (size_t at = 0; at < made.packed.body.size() + made.packed.payload.size(); at += 1) {
      const bool in_body = at < made.packed.body.size();
      if (!in_body && at % 7 != 0) continue;
      for (const uint8_t by : {0x01, 0x80, 0xff}) {
        log::Packed changed = made.packed;
        std::byte& byte =
            in_body ? changed.body[at] : changed.payload[at - made.packed.body.size()];
        byte ^= std::byte{by};
        Record record = made.record;
        record.body = changed.body;
        record.payload = changed.payload;
        const auto raw = log::raw_bytes(record);
        refused += raw ? 0 : 1;
        if (raw) {
          EXPECT_EQ(raw->size(), made.raw.size());
        }
      }
    }
  }
  EXPECT_GT(refused, 1000u);
  // Shorter than it says, and with more than it says.
  const Made made(Compression::kZstd, 66'000);
  for (size_t length = 0; length < made.packed.body.size(); length++) {
    const auto body = std::span(made.packed.body).first(length);
    const bool whole = length >= sizeof(FrameTable) + 2 * sizeof(uint32_t);
    EXPECT_EQ(Frames::read(body, made.packed.payload.size()).has_value(), whole);
  }
  EXPECT_FALSE(Frames::read(made.packed.body, made.packed.payload.size() + 1));
  EXPECT_FALSE(Frames::read(made.packed.body, made.packed.payload.size() - 1));
}

// A few values, most of them compressed, closed; with and without anything else to read them by.
class Volume {
 public:
  explicit Volume(Compression compression) : options_(compressing_options(compression)) {
    auto store = must_open(disk_, options_);
    EXPECT_TRUE(make_directory(*store, "d"));
    for (uint64_t i = 0; i < 9; i++) {
      const std::string path = "d/f" + std::to_string(i);
      values_[path] = pattern(i % 3 == 2 ? noise(i) : compressible(i), 900 + i * 700);
      EXPECT_TRUE(put(*store, path, values_[path]));
    }
    EXPECT_TRUE(clean_all(*store));
    EXPECT_EQ(check_values(*store, values_), "");
    for (const auto& [path, bytes] : values_) {
      if (how_stored(*store, path) != Stored::kCompressed) continue;
      compressed_[path] = extents_of(*store, path)[0];
    }
    EXPECT_EQ(compressed_.size(), 5u);
    EXPECT_TRUE(store->close());
    store.reset();
    disk_.restart(CrashKind::kPowerLoss);
  }

  SimDisk& disk() { return disk_; }
  const StoreOptions& options() const { return options_; }
  const Values& values() const { return values_; }
  const std::map<std::string, index::Extent>& compressed() const { return compressed_; }
  std::string log_file(const index::Extent& extent) const {
    return log::log_file_path(extent.record.file());
  }
  // The record as it lies there, and what salts it.
  inspect::StoredRecord record_of(const index::Extent& extent, log::Salt& salt) {
    const auto reader = *inspect::LogReader::open(disk_);
    salt = reader.find(extent.record.file())->identity.salt;
    auto stored = *reader.read_record(extent.record);
    return stored;
  }

 private:
  SimDisk disk_{{.seed = 3}};
  const StoreOptions options_;
  Values values_;
  std::map<std::string, index::Extent> compressed_;
};

TEST(Compression, F38_P0_P9_EveryByteOfARecord) {
  for (const Compression algorithm : kBoth) {
    Volume volume(algorithm);
    const auto& [victim, extent] = *std::next(volume.compressed().begin());
    log::Salt salt;
    const uint64_t length = volume.record_of(extent, salt).found.total_length;
    uint64_t errors = 0;
    for (uint64_t at = 0; at < length; at++) {
      const auto copy = volume.disk().clone_after_process_kill(1);
      const uint64_t byte = extent.record.offset() + at;
      ASSERT_TRUE(copy->flip_bit(volume.log_file(extent), byte * 8 + at % 8));
      auto store = must_open(*copy, volume.options());
      for (const auto& [path, expected] : volume.values()) {
        const auto bytes = get(*store, path);
        if (bytes) {
          ASSERT_TRUE(same_bytes(*bytes, expected)) << path << ", byte " << at;
          continue;
        }
        ASSERT_EQ(bytes.error().code, EIO);
        ASSERT_EQ(path, victim) << "byte " << at;
        errors++;
      }
      if (at % 50 != 0) continue;
      // Cleaning does not lose it, nor another.
      ASSERT_TRUE(store->gc());
      for (const auto& [path, expected] : volume.values()) {
        const auto bytes = get(*store, path);
        ASSERT_TRUE(bytes ? same_bytes(*bytes, expected) : path == victim) << path << " " << at;
      }
    }
    EXPECT_GT(errors, length - 16);  // padding may be what it likes
  }
}

// Frames that make no sense under checksums that are right: a bug, or malice.
TEST(Compression, F38_P9_LyingFramesUnderRightChecksums) {
  for (const Compression algorithm : kBoth) {
    Volume volume(algorithm);
    const auto& [victim, extent] = *volume.compressed().rbegin();
    log::Salt salt;
    const auto stored = volume.record_of(extent, salt);
    const Record& sound = stored.found.record;
    int unreadable = 0;
    for (size_t at = 8; at < sizeof(FrameTable) + 4 + 40; at++) {
      Bytes body(sound.body.begin(), sound.body.end());
      Bytes payload(sound.payload.begin(), sound.payload.end());
      const bool in_body = at < sizeof(FrameTable) + 4;
      std::byte& byte = in_body ? body[at] : payload[at - sizeof(FrameTable) - 4];
      byte ^= std::byte{0x41};
      Record record = sound;
      record.body = body;
      record.payload = payload;
      Bytes image(record.total_length());
      log::encode(record, salt, extent.record.offset(), image.data());
      for (const bool from_log : {false, true}) {
        const auto copy = volume.disk().clone_after_process_kill(1);
        ASSERT_TRUE(copy->corrupt(volume.log_file(extent), extent.record.offset(), image));
        for (const std::string& path : copy->files()) {
          if (from_log && path.rfind("checkpoint/", 0) == 0) {
            ASSERT_TRUE(copy->erase(path));
          }
        }
        const auto checked = inspect::check_volume(*copy, {});
        ASSERT_TRUE(checked) << checked.error().what;
        auto store = must_open(*copy, volume.options());
        const auto bytes = get(*store, victim);
        unreadable += bytes ? 0 : 1;
        if (!bytes) {
          EXPECT_EQ(bytes.error().code, EIO) << at;
          const auto scrubbed = store->scrub(0);
          ASSERT_TRUE(scrubbed);
          EXPECT_GT(scrubbed->damaged, 0u) << at << (from_log ? " from the log" : "");
        }
        for (const auto& [path, expected] : volume.values()) {
          if (path != victim) {
            ASSERT_EQ(*get(*store, path), expected) << path << " " << at;
          }
        }
        ASSERT_TRUE(store->gc());
        const auto after = get(*store, victim);
        EXPECT_EQ(after.has_value(), bytes.has_value()) << at;
        EXPECT_EQ(check_index(*store), "");
      }
    }
    EXPECT_GT(unreadable, 20);
  }
}

TEST(Compression, F38_ToolsUnderstandIt) {
  for (const Compression algorithm : kBoth) {
    Volume volume(algorithm);
    inspect::Observer observer;
    std::vector<std::string> errors;
    observer.found = [&](const inspect::Finding& finding) {
      if (finding.severity == inspect::Finding::Severity::kError) errors.push_back(finding.what);
    };
    const auto checked = inspect::check_volume(volume.disk(), observer);
    ASSERT_TRUE(checked);
    EXPECT_TRUE(errors.empty()) << errors[0];
    {
      const auto copy = volume.disk().clone_after_power_loss(1);
      auto store = must_open(*copy, volume.options());
      const auto scrubbed = store->scrub(0);
      ASSERT_TRUE(scrubbed) << scrubbed.error().what;
      EXPECT_EQ(scrubbed->damaged + scrubbed->dead_damage, 0u);
    }
    // A superblock that is made anew knows that there are compressed records.
    ASSERT_TRUE(volume.disk().erase("super"));
    const auto rebuilt = inspect::rebuild_superblock(volume.disk());
    ASSERT_TRUE(rebuilt) << rebuilt.error().what;
    EXPECT_EQ(rebuilt->incompat, log::Superblock::kCompressedRecords);
    const auto salvage = inspect::Salvage::read(volume.disk());
    ASSERT_TRUE(salvage) << salvage.error().what;
    uint64_t found = 0;
    (*salvage)->index().for_each_inode([&](const index::Inode& inode) {
      const auto value = volume.values().find((*salvage)->index().path_of(inode.id));
      if (value == volume.values().end()) return;
      Bytes bytes(inode.attributes.size);
      const auto holes =
          (*salvage)->read_value(inode, [&](uint64_t at, std::span<const std::byte> part) {
            std::copy(part.begin(), part.end(), bytes.begin() + static_cast<ptrdiff_t>(at));
            return true;
          });
      EXPECT_TRUE(holes.empty());
      EXPECT_EQ(bytes, value->second);
      found++;
    });
    EXPECT_EQ(found, volume.values().size());
  }
}

// Of a large value of which some chunks are damaged, salvage and check lose only their frames.
TEST(Compression, F38_P9_DamageCostsAFrame) {
  const StoreOptions options = large_compressing_options(Compression::kZstd);
  SimDisk disk({});
  const Bytes bytes = pattern(compressible(4), 2 * kMiB);
  index::Extent extent;
  {
    auto store = must_open(disk, options);
    ASSERT_TRUE(create(*store, "a"));
    ASSERT_TRUE(write(*store, "a", 0, bytes));
    ASSERT_TRUE(clean_all(*store));
    ASSERT_EQ(how_stored(*store, "a"), Stored::kCompressed);
    extent = extents_of(*store, "a")[0];
    ASSERT_TRUE(store->close());
  }
  disk.restart(CrashKind::kPowerLoss);
  ASSERT_TRUE(disk.flip_bit(log::log_file_path(extent.record.file()),
                            (extent.record.offset() + extent.own_bytes() / 2) * 8));
  {
    const auto copy = disk.clone_after_power_loss(1);
    auto store = must_open(*copy, options);
    const log::ObjectId inode = look_up(*store, "a");
    int bad = 0;
    for (uint64_t at = 0; at < bytes.size(); at += log::kFrame) {
      Bytes frame(log::kFrame);
      const auto got = store->read(inode, at, frame);
      if (!got) bad++;
      if (got) {
        EXPECT_TRUE(same_bytes(frame, std::span(bytes).subspan(at, log::kFrame)));
      }
    }
    EXPECT_GE(bad, 1);
    EXPECT_LE(bad, 2);
  }
  const auto salvage = inspect::Salvage::read(disk);
  ASSERT_TRUE(salvage);
  (*salvage)->index().for_each_inode([&](const index::Inode& inode) {
    if ((*salvage)->index().path_of(inode.id) != "a") return;
    uint64_t good = 0;
    const auto holes =
        (*salvage)->read_value(inode, [&](uint64_t at, std::span<const std::byte> part) {
          EXPECT_TRUE(same_bytes(part, std::span(bytes).subspan(at, part.size())));
          good += part.size();
          return true;
        });
    ASSERT_EQ(holes.size(), 1u);
    EXPECT_LE(holes[0].length, 2 * log::kFrame);
    EXPECT_EQ(good + holes[0].length, bytes.size());
  });
}

TEST(Compression, F38_P1_P2_CleaningMayBeStoppedAtEveryStep) {
  for (const Compression algorithm : kBoth) {
    const StoreOptions options = compressing_options(algorithm);
    SimDisk disk({.seed = 9});
    auto store = must_open(disk, options);
    Values values;
    for (uint64_t i = 0; i < 40; i++) {
      const std::string path = "f" + std::to_string(i);
      values[path] = pattern(i % 4 == 0 ? noise(i) : compressible(i), 500 + 397 * i);
      ASSERT_TRUE(put(*store, path, values[path]));
    }
    ASSERT_TRUE(clean_all(*store));
    for (uint64_t i = 0; i < 40; i += 2) {  // pieces of compressed ones
      const std::string path = "f" + std::to_string(i);
      const Bytes piece = pattern(i, 100);
      ASSERT_TRUE(write(*store, path, 200 + i, piece));
      std::copy(piece.begin(), piece.end(), values[path].begin() + static_cast<ptrdiff_t>(200 + i));
    }
    ASSERT_TRUE(store->sync());
    uint64_t stops = 0;
    disk.set_fault([&](const Operation& operation) {
      if (operation.kind >= OperationKind::kOpen || ::testing::Test::HasFailure()) return 0;
      const bool kill = stops % 3 == 0;
      const auto left =
          kill ? disk.clone_after_process_kill(stops) : disk.clone_after_power_loss(stops);
      stops++;
      for (const std::string& path : left->files()) {
        if (stops % 4 == 0 && path.rfind("checkpoint/", 0) == 0) {
          EXPECT_TRUE(left->erase(path));
        }
      }
      auto opened = open_store(*left, options);
      EXPECT_TRUE(opened) << stops << ": " << (opened ? "" : opened.error().what);
      if (!opened) return 0;
      EXPECT_EQ(check_values(**opened, values), "") << stops;
      if (stops % 5 == 0) {
        EXPECT_TRUE((*opened)->gc());
        EXPECT_EQ(check_values(**opened, values), "") << stops;
      }
      return 0;
    });
    ASSERT_TRUE(clean_all(*store));
    disk.set_fault({});
    EXPECT_GT(stops, 30u);
    EXPECT_EQ(check_values(*store, values), "");
  }
}

}  // namespace
}  // namespace valfs::test
