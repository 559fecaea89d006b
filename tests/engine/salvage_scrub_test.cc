// Salvage and scrubbing, on the simulated disk.
#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <random>

#include "engine/inspect/salvage.h"
#include "engine/inspect/scrub.h"
#include "tests/support/tree_model.h"

namespace valfs::test {
namespace {

using inspect::Salvage;
using storage::CrashKind;
using storage::SimDisk;

std::vector<std::string> files_in(SimDisk& disk, const std::string& directory) {
  std::vector<std::string> found;
  for (const std::string& path : disk.files()) {
    if (path.rfind(directory + "/", 0) == 0) found.push_back(path);
  }
  return found;
}

Bytes value_of(const Salvage& salvage, const index::Inode& inode,
               std::vector<Salvage::Hole>* holes = nullptr) {
  Bytes bytes(inode.attributes.size);
  auto missing = salvage.read_value(inode, [&](uint64_t offset, std::span<const std::byte> part) {
    EXPECT_LE(offset + part.size(), bytes.size());
    std::copy(part.begin(), part.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
    return true;
  });
  if (holes != nullptr) *holes = std::move(missing);
  return bytes;
}

std::map<std::string, Bytes> values_in(const Salvage& salvage) {
  std::map<std::string, Bytes> values;
  salvage.index().for_each_inode([&](const index::Inode& inode) {
    const bool file = (inode.attributes.mode & 0170000) == 0100000;
    if (inode.sums || !file || !inode.has_names()) return;
    values[salvage.index().path_of(inode.id)] = value_of(salvage, inode);
  });
  return values;
}

std::map<std::string, Bytes> values_in(Store& store) {
  std::map<std::string, Bytes> values;
  std::map<std::string, log::ObjectId> files;
  store.read_index([&](const index::Index& index) {
    index.for_each_inode([&](const index::Inode& inode) {
      const bool file = (inode.attributes.mode & 0170000) == 0100000;
      if (!inode.sums && file && inode.has_names()) files[index.path_of(inode.id)] = inode.id;
    });
  });
  for (const auto& [path, id] : files) {
    Bytes bytes(attributes_of(store, id).size);
    EXPECT_TRUE(store.read(id, 0, bytes)) << path;
    values[path] = bytes;
  }
  return values;
}

void destroy_all_but_records(SimDisk& disk) {
  ASSERT_TRUE(disk.erase("super"));
  for (const std::string& path : files_in(disk, "checkpoint")) {
    ASSERT_TRUE(disk.erase(path));
  }
  for (const std::string& path : files_in(disk, "wal")) {
    ASSERT_TRUE(disk.corrupt(path, 0, Bytes(log::kBlock)));
  }
}

TEST(Salvage, GivesBackEveryValueOfAnyHistory) {
  const char* text = std::getenv("VALFS_SEED");
  const uint64_t start =
      text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device()();
  std::cout << "seed " << start << "\n";
  for (uint64_t seed = start; seed < start + 20; seed++) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SimDisk disk({.seed = seed});
    FakeClock clock;
    StoreOptions options = small_options(clock);
    if (seed % 4 < 2) options.compression = Compression::kLz4;
    auto store = must_open(disk, options);
    ActionSource source(seed, true);
    Tree tree;
    for (int i = 0; i < 300; i++) {
      const Action action = source.next(tree);
      tree.apply(action);
      ASSERT_TRUE(run(*store, clock, action)) << action.text();
    }
    const auto expected = values_in(*store);
    if (seed % 2 == 0) {
      ASSERT_TRUE(store->close());
    }
    store.reset();
    disk.restart(CrashKind::kProcessKill);
    for (const bool bare : {false, true}) {
      SCOPED_TRACE(bare);
      // What a killed daemon had staged needs a header to be found.
      if (bare && seed % 2 != 0) continue;
      if (bare) destroy_all_but_records(disk);
      const auto salvage = Salvage::read(disk);
      ASSERT_TRUE(salvage) << salvage.error().what;
      const auto found = values_in(**salvage);
      EXPECT_EQ(found.size(), expected.size());
      for (const auto& [path, bytes] : expected) {
        ASSERT_EQ(found.count(path), 1u) << path;
        EXPECT_TRUE(found.at(path) == bytes) << path;
      }
    }
  }
}

TEST(Salvage, ValuesRememberTheirPlace) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(make_directory(*store, "d"));
  ASSERT_TRUE(put(*store, "d/name", pattern(1, 5000)));
  const log::ObjectId directory = look_up(*store, "d");
  const log::ObjectId inode = look_up(*store, "d/name");
  ASSERT_TRUE(store->close());
  store.reset();
  // Every NAME and INODE record goes.
  const auto reader = *inspect::LogReader::open(disk);
  std::vector<log::Position> records;
  for (const auto& entry : reader.files()) {
    inspect::LogReader::Visitor visitor;
    visitor.record = [&](const log::Record& record, log::Position position, bool) {
      if (record.type != log::RecordType::kExtent) records.push_back(position);
      return true;
    };
    inspect::LogReader::scan(entry, visitor);
  }
  ASSERT_GT(records.size(), 4u);
  for (const log::Position record : records) {
    ASSERT_TRUE(disk.flip_bit(log::log_file_path(record.file()), (record.offset() + 30) * 8));
  }
  destroy_all_but_records(disk);
  const auto salvage = Salvage::read(disk);
  ASSERT_TRUE(salvage);
  const auto found = (*salvage)->index().find(inode);
  ASSERT_NE(found, nullptr);
  EXPECT_FALSE(found->has_names());
  EXPECT_EQ(value_of(**salvage, *found), pattern(1, 5000));
  ASSERT_EQ((*salvage)->hints().count(inode), 1u);
  EXPECT_EQ((*salvage)->hints().at(inode).parent, directory);
  EXPECT_EQ((*salvage)->hints().at(inode).name, "name");
}

TEST(Salvage, OfTwoFilesWithOneGroupTheYoungerWholeOneCounts) {
  SimDisk disk({});
  auto store = must_open(disk, small_options());
  ASSERT_TRUE(put(*store, "f", pattern(1, 3000)));
  const log::ObjectId inode = look_up(*store, "f");
  ASSERT_TRUE(store->close());
  store.reset();
  // The group of the value again, with other bytes, in a file of a higher id.
  const auto reader = *inspect::LogReader::open(disk);
  const auto& entry = reader.files().front();
  log::GroupHeader group;
  inspect::LogReader::Visitor visitor;
  visitor.group = [&](const recovery::FoundGroup& found) {
    group = found.header;
    return true;
  };
  bool seen = false;
  visitor.record = [&](const log::Record& record, log::Position, bool) {
    seen |= record.id == inode && record.type == log::RecordType::kExtent;
    return !seen;
  };
  inspect::LogReader::scan(entry, visitor);
  ASSERT_TRUE(seen);
  const Bytes other = pattern(2, 3000);
  log::LogFileHeader header = *entry.identity.header;
  header.file = entry.file->id + 7;
  header.crc = 0;
  Bytes file(64 * 1024);
  const log::Salt salt{header.volume.salt(), header.file, header.epoch};
  log::Record record;
  record.type = log::RecordType::kExtent;
  record.id = inode;
  record.sequence = 1'000'000;
  record.payload = other;
  log::GroupSummary summary;
  const uint64_t offset = log::kFirstGroupOffset;
  const uint32_t crc = log::encode(record, salt, offset + sizeof(log::GroupHeader),
                                   file.data() + offset + sizeof(log::GroupHeader));
  summary.add(record, crc, sizeof(log::GroupHeader));
  log::seal_group(file.data() + offset, sizeof(log::GroupHeader) + record.total_length(), summary,
                  {salt, offset, group.sequence, log::Stream::kUser, 0, 0}, 0, 0, 0);
  const std::string path = log::log_file_path(header.file);
  auto written = *disk.open(path, storage::OpenMode::kCreate);
  ASSERT_TRUE(written->write(0, file));
  for (const bool damaged : {false, true}) {
    SCOPED_TRACE(damaged);
    if (damaged) {
      ASSERT_TRUE(disk.flip_bit(path, (offset + sizeof(log::GroupHeader) + 500) * 8));
    }
    const auto salvage = Salvage::read(disk);
    ASSERT_TRUE(salvage);
    const auto found = (*salvage)->index().find(inode);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(value_of(**salvage, *found), damaged ? pattern(1, 3000) : other);
  }
}

// --- scrub ---

class Scrub : public ::testing::Test {
 protected:
  SimDisk disk_{{.seed = 2}};
  FakeClock clock_;
  std::unique_ptr<Store> store_;

  void SetUp() override {
    store_ = must_open(disk_, small_options(clock_));
    for (int i = 0; i < 40; i++) {
      ASSERT_TRUE(put(*store_, "f" + std::to_string(i), pattern(static_cast<uint64_t>(i), 20'000)));
    }
    ASSERT_TRUE(put(*store_, "blob", pattern(99, 200'000)));
    ASSERT_TRUE(store_->checkpoint());
    ASSERT_TRUE(put(*store_, "late", pattern(7, 20'000)));
  }
  // A bit of the bytes of a value, wherever they lie.
  void flip_in(const Bytes& value) {
    const Bytes needle(value.begin() + 5000, value.begin() + 5032);
    for (const std::string& path : disk_.files()) {
      const auto bytes = *disk_.contents(path);
      const auto at = std::search(bytes.begin(), bytes.end(), needle.begin(), needle.end());
      if (at == bytes.end()) continue;
      ASSERT_TRUE(disk_.flip_bit(path, static_cast<uint64_t>(at - bytes.begin()) * 8));
      return;
    }
    FAIL() << "the value is not on the disk";
  }
};

TEST_F(Scrub, OfASoundStoreFindsNothing) {
  const auto done = store_->scrub(0);
  ASSERT_TRUE(done) << done.error().what;
  EXPECT_EQ(done->damaged, 0u);
  EXPECT_EQ(done->dead_damage, 0u);
  EXPECT_GT(done->bytes_done, 41u * 20'000 + 200'000);
  EXPECT_EQ(done->bytes_done, done->bytes_total);
  EXPECT_FALSE(store_->scrub_progress().running);
}

TEST_F(Scrub, NamesEachDamagedValueWithItsPath) {
  ASSERT_TRUE(store_->sync());
  for (const int i : {3, 17}) flip_in(pattern(static_cast<uint64_t>(i), 20'000));
  flip_in(pattern(7, 20'000));  // f7 and late have the same bytes: the older copy is hit
  flip_in(pattern(99, 200'000));
  const auto done = store_->scrub(0);
  ASSERT_TRUE(done);
  std::set<std::string> paths;
  for (const auto& finding : done->findings) paths.insert(finding.path);
  EXPECT_EQ(paths, (std::set<std::string>{"f3", "f17", "f7", "blob"}));
  EXPECT_EQ(done->damaged, 4u);
}

TEST_F(Scrub, WhatIsDeadIsOnlyCounted) {
  ASSERT_TRUE(store_->sync());
  ASSERT_TRUE(remove(*store_, "f5"));
  flip_in(pattern(5, 20'000));
  const auto done = store_->scrub(0);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->damaged, 0u);
  EXPECT_EQ(done->dead_damage, 1u);
}

TEST_F(Scrub, ChecksTheCheckpointAndRecordsOfNames) {
  ASSERT_TRUE(store_->sync());
  ASSERT_TRUE(disk_.flip_bit(files_in(disk_, "checkpoint").back(), 9000));
  const auto done = store_->scrub(0);
  ASSERT_TRUE(done);
  ASSERT_EQ(done->findings.size(), 1u);
  EXPECT_EQ(done->findings[0].kind, "checkpoint");
  ASSERT_TRUE(store_->checkpoint());
  EXPECT_EQ(store_->scrub(0)->damaged, 0u);
  log::Position record;
  store_->read_index(
      [&](const index::Index& index) { record = index.find(index::kRoot, "f9")->record; });
  ASSERT_TRUE(disk_.flip_bit(log::log_file_path(record.file()), (record.offset() + 20) * 8));
  const auto again = store_->scrub(0);
  ASSERT_TRUE(again);
  ASSERT_EQ(again->findings.size(), 1u);
  EXPECT_EQ(again->findings[0].kind, "metadata");
  EXPECT_EQ(again->findings[0].path, "f9");
}

TEST_F(Scrub, OfADataDirectoryFindsTheSame) {
  ASSERT_TRUE(store_->close());
  store_.reset();
  {
    inspect::Scrubber scrubber;
    const auto done = inspect::scrub_volume(disk_, scrubber, 0);
    ASSERT_TRUE(done) << done.error().what;
    EXPECT_EQ(done->damaged, 0u);
  }
  flip_in(pattern(3, 20'000));
  flip_in(pattern(99, 200'000));
  inspect::Scrubber scrubber;
  const auto done = inspect::scrub_volume(disk_, scrubber, 0);
  ASSERT_TRUE(done);
  std::set<std::string> paths;
  for (const auto& finding : done->findings) paths.insert(finding.path);
  EXPECT_EQ(paths, (std::set<std::string>{"f3", "blob"}));
}

TEST_F(Scrub, EndsWhenItIsToldTo) {
  store_->stop_scrub(true);
  const auto done = store_->scrub(1);  // a byte a second
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ECANCELED);
}

}  // namespace
}  // namespace valfs::test
