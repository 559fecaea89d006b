// The check of a volume, its repair, and the reader of log files, on the simulated disk.
#include "engine/inspect/check.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <map>
#include <random>

#include "engine/checkpoint/checkpoint.h"
#include "engine/inspect/repair.h"
#include "tests/support/disk_handle.h"
#include "tests/support/tree_model.h"

namespace valfs::test {
namespace {

using inspect::Diagnosis;
using inspect::Finding;
using inspect::LogReader;
using log::kBlock;
using storage::CrashKind;
using storage::SimDisk;

struct Checked {
  Diagnosis diagnosis;
  std::vector<Finding> findings;

  // "" or the first error.
  std::string first_error() const {
    for (const Finding& finding : findings) {
      if (finding.severity == Finding::Severity::kError) {
        return finding.kind + " " + finding.path + " " + finding.file + ": " + finding.what;
      }
    }
    return "";
  }
  const Finding* find(const std::string& kind) const {
    for (const Finding& finding : findings) {
      if (finding.kind == kind) return &finding;
    }
    return nullptr;
  }
};

std::map<std::string, Bytes> everything(SimDisk& disk) {
  std::map<std::string, Bytes> files;
  for (const std::string& path : disk.files()) files[path] = *disk.contents(path);
  return files;
}

// Checks, and that nothing on the disk has changed by it.
Checked check(SimDisk& disk) {
  Checked checked;
  const auto before = everything(disk);
  inspect::Observer observer;
  observer.found = [&](const Finding& finding) { checked.findings.push_back(finding); };
  auto diagnosis = inspect::check_volume(disk, observer);
  EXPECT_TRUE(diagnosis) << diagnosis.error().what;
  if (diagnosis) checked.diagnosis = std::move(*diagnosis);
  EXPECT_TRUE(before == everything(disk)) << "the check has changed the disk";
  return checked;
}

// As `valfs fsck --repair`: check, mend, check again.
Checked repair(SimDisk& disk) {
  const Checked found = check(disk);
  const auto acted = [](const std::string&, const std::string&) {};
  EXPECT_TRUE(inspect::repair_files(disk, found.diagnosis, "test", acted));
  if (inspect::needs_store(found.diagnosis)) {
    const auto mended =
        inspect::repair_store(handle_of(disk), small_options(), found.diagnosis, acted);
    EXPECT_TRUE(mended) << mended.error().what;
  }
  return check(disk);
}

std::vector<std::string> files_in(SimDisk& disk, const std::string& directory) {
  std::vector<std::string> found;
  for (const std::string& path : disk.files()) {
    if (path.rfind(directory + "/", 0) == 0) found.push_back(path);
  }
  return found;
}

void flip(SimDisk& disk, const std::string& path, uint64_t byte) {
  ASSERT_TRUE(disk.flip_bit(path, byte * 8 + 3)) << path << " " << byte;
}

Bytes value(int i) {
  return pattern(static_cast<uint64_t>(i) + 77, 3000);
}

// A tree of several log files, with a blob, closed; f0 … f59 below d/.
class Volume : public ::testing::Test {
 protected:
  static constexpr int kCount = 60;
  SimDisk disk_{{.seed = 5}};

  void SetUp() override {
    auto store = must_open(disk_, small_options());
    ASSERT_TRUE(make_directory(*store, "d"));
    ASSERT_TRUE(put(*store, "blob", pattern(1, 150'000)));
    for (int i = 0; i < kCount; i++) {
      ASSERT_TRUE(put(*store, path(i), value(i)));
      ASSERT_TRUE(put(*store, "filler" + std::to_string(i % 3), pattern(9, 20'000)));
      ASSERT_TRUE(store->sync());
    }
    ASSERT_TRUE(store->close());
    store.reset();
    disk_.restart(CrashKind::kPowerLoss);
  }
  static std::string path(int i) { return "d/f" + std::to_string(i); }

  // How many of the values are there; what is not must answer EIO, and nothing may be wrong.
  int count_good(const std::vector<int>& may_be_gone = {}) {
    auto store = must_open(disk_, small_options());
    int good = 0;
    for (int i = 0; i < kCount; i++) {
      if (look_up(*store, path(i)) == 0) {
        EXPECT_NE(std::count(may_be_gone.begin(), may_be_gone.end(), i), 0) << path(i);
        continue;
      }
      const auto bytes = get(*store, path(i));
      if (bytes) {
        EXPECT_EQ(*bytes, value(i)) << path(i);
        good++;
      } else {
        EXPECT_EQ(bytes.error().code, EIO);
      }
    }
    EXPECT_EQ(check_index(*store), "");
    EXPECT_TRUE(put(*store, "d/new", value(1)));
    EXPECT_TRUE(store->close());
    return good;
  }

  // Where the record of the value is, by the reader.
  log::Position record_of(int i) {
    const log::Superblock superblock = *log::read_superblock(disk_);
    const auto volume = *inspect::recover_dry(disk_, superblock, recovery::MissingFile::kRefuse);
    const auto directory = volume->index->find(index::kRoot, "d");
    const auto name = volume->index->find(directory->inode, "f" + std::to_string(i));
    const auto inode = volume->index->find(name->inode);
    return inode->extents().all().front().record;
  }
  uint64_t payload_of(log::Position record) {
    const auto reader = *LogReader::open(disk_);
    return record.offset() + reader.read_record(record)->found.meta_length;
  }
  void erase_checkpoints() {
    for (const std::string& checkpoint : files_in(disk_, "checkpoint")) {
      ASSERT_TRUE(disk_.erase(checkpoint));
    }
  }
};

// --- a volume that is well is found to be well, whatever has happened to it ---

uint64_t first_seed() {
  const char* seed = std::getenv("VALFS_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 10) : std::random_device()();
}

TEST(Check, FindsNothingInVolumesThatWentThroughAnything) {
  const uint64_t start = first_seed();
  std::cout << "seed " << start << "\n";
  for (uint64_t seed = start; seed < start + 30; seed++) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SimDisk disk({.seed = seed});
    FakeClock clock;
    auto store = must_open(disk, small_options(clock));
    ActionSource source(seed, true);
    Tree tree;
    for (int i = 0; i < 400; i++) {
      const Action action = source.next(tree);
      tree.apply(action);
      ASSERT_TRUE(run(*store, clock, action)) << action.text();
      if (i % 100 != 99) continue;
      if (seed % 3 == 0) {
        ASSERT_TRUE(store->close());
      }
      store.reset();
      disk.restart(seed % 3 == 1 ? CrashKind::kPowerLoss : CrashKind::kProcessKill);
      const Checked checked = check(disk);
      ASSERT_EQ(checked.first_error(), "");
      // After power loss the tree may have fallen back.
      if (seed % 3 == 1) break;
      store = must_open(disk, small_options(clock));
      ASSERT_EQ(check_index(*store), "");
    }
  }
}

TEST_F(Volume, ReadsEveryRecordOfEveryFile) {
  const auto reader = *LogReader::open(disk_);
  ASSERT_GT(reader.files().size(), 2u);
  std::set<log::RecordSequence> sequences;
  log::FileId last = 0;
  uint64_t checked = 0;
  for (const auto& entry : reader.files()) {
    EXPECT_GT(entry.file->id, last);
    last = entry.file->id;
    LogReader::Visitor visitor;
    visitor.record = [&](const log::Record& record, log::Position position, bool good) {
      EXPECT_TRUE(good);
      sequences.insert(record.sequence);
      if (++checked % 7 != 0) return true;
      const auto again = reader.read_record(position);
      EXPECT_TRUE(again);
      EXPECT_EQ(again->found.record.sequence, record.sequence);
      EXPECT_TRUE(again->payload_good);
      EXPECT_TRUE(std::equal(record.payload.begin(), record.payload.end(),
                             again->found.record.payload.begin(),
                             again->found.record.payload.end()));
      return true;
    };
    visitor.damage = [](const inspect::Damage& damage) {
      ADD_FAILURE() << damage.text();
      return true;
    };
    ASSERT_TRUE(reader.scan(entry.file->id, visitor));
  }
  EXPECT_GT(sequences.size(), 2u * kCount);
  // It stops when it is told to.
  int seen = 0;
  LogReader::Visitor once;
  once.record = [&](const log::Record&, log::Position, bool) { return ++seen < 3; };
  ASSERT_TRUE(reader.scan(reader.files().front().file->id, once));
  EXPECT_EQ(seen, 3);
  EXPECT_EQ(reader.scan(999, once).error().code, ENOENT);
}

TEST_F(Volume, ReadingGoesOnBehindDamage) {
  const log::Position bad = record_of(20);
  flip(disk_, log::log_file_path(bad.file()), bad.offset() + 20);
  const auto reader = *LogReader::open(disk_);
  size_t records = 0;
  std::vector<inspect::Damage> damages;
  LogReader::Visitor visitor;
  visitor.record = [&](const log::Record&, log::Position position, bool) {
    EXPECT_NE(position, bad);
    records++;
    return true;
  };
  visitor.damage = [&](const inspect::Damage& damage) {
    damages.push_back(damage);
    return true;
  };
  ASSERT_TRUE(reader.scan(bad.file(), visitor));
  ASSERT_EQ(damages.size(), 1u);
  EXPECT_EQ(damages[0].kind, inspect::Damage::Kind::kRecord);
  EXPECT_EQ(damages[0].begin, bad.offset());
  ASSERT_TRUE(damages[0].lost);
  EXPECT_EQ(damages[0].lost->type, log::RecordType::kExtent);
  EXPECT_GT(records, 3u);
  EXPECT_EQ(reader.read_record(bad).error().code, EIO);
}

// --- each kind of damage ---

TEST_F(Volume, AWholeVolumeIsClean) {
  const Checked checked = check(disk_);
  EXPECT_EQ(checked.first_error(), "");
  EXPECT_EQ(checked.findings.size(), 0u);
  EXPECT_EQ(checked.diagnosis.blobs, 1u);
}

TEST_F(Volume, ADamagedSuperblockCopyIsWrittenAnew) {
  for (const uint64_t copy : {0, 2}) flip(disk_, "super", copy * kBlock + 40);
  const Checked found = check(disk_);
  EXPECT_EQ(found.diagnosis.errors, 2u);
  EXPECT_TRUE(found.find("superblock")->repairable);
  EXPECT_EQ(repair(disk_).first_error(), "");
  for (size_t copy = 0; copy < 4; copy++) {
    auto file = *disk_.open("super", storage::OpenMode::kRead);
    EXPECT_TRUE(log::read_superblock_copies(*file).copies[copy]);
  }
  EXPECT_EQ(files_in(disk_, "quarantine").size(), 2u);  // the old one, and the report
  EXPECT_EQ(count_good(), kCount);
}

TEST_F(Volume, ALostSuperblockIsRebuiltFromTheLog) {
  for (const bool missing : {false, true}) {
    SCOPED_TRACE(missing);
    auto copy = disk_.clone_after_power_loss(1);
    if (missing) {
      ASSERT_TRUE(copy->erase("super"));
    } else {
      for (uint64_t i = 0; i < 4; i++) flip(*copy, "super", i * kBlock + 100);
    }
    EXPECT_FALSE(open_store(*copy, small_options()));  // not taken for an empty directory
    EXPECT_GT(files_in(*copy, "wal").size(), 2u);
    EXPECT_EQ(repair(*copy).first_error(), "");
    auto store = must_open(*copy, small_options());
    for (int i = 0; i < kCount; i++) EXPECT_EQ(*get(*store, path(i)), value(i));
    EXPECT_EQ(*get(*store, "blob"), pattern(1, 150'000));
    EXPECT_TRUE(store->stats().used_checkpoint);
  }
}

TEST_F(Volume, StagedGroupsSurviveTheLossOfTheSuperblock) {
  {
    auto store = must_open(disk_, small_options());
    ASSERT_TRUE(put(*store, "staged", value(3)));
    store.reset();
    disk_.restart(CrashKind::kProcessKill);
  }
  ASSERT_TRUE(disk_.erase("super"));
  EXPECT_EQ(repair(disk_).first_error(), "");
  auto store = must_open(disk_, small_options());
  EXPECT_EQ(*get(*store, "staged"), value(3));
}

TEST_F(Volume, ADamagedHeaderOfALogFileIsWrittenAnew) {
  const auto logs = files_in(disk_, "wal");
  for (const std::string& path : logs) flip(disk_, path, 20);
  const Checked found = check(disk_);
  EXPECT_EQ(found.diagnosis.headers.size(), logs.size());
  EXPECT_EQ(repair(disk_).first_error(), "");
  const auto reader = *LogReader::open(disk_);
  for (const auto& entry : reader.files()) EXPECT_TRUE(entry.identity.header);
  EXPECT_EQ(count_good(), kCount);
}

TEST_F(Volume, ADamagedPayloadIsNamedAndKept) {
  const log::Position record = record_of(7);
  flip(disk_, log::log_file_path(record.file()), payload_of(record) + 100);
  const Checked found = check(disk_);
  const Finding* finding = found.find("value");
  ASSERT_NE(finding, nullptr);
  EXPECT_EQ(finding->path, path(7));
  EXPECT_EQ(finding->file, log::log_file_path(record.file()));
  EXPECT_EQ(finding->offset, record.offset());
  EXPECT_FALSE(finding->repairable);
  const Checked after = repair(disk_);
  ASSERT_NE(after.find("value"), nullptr);
  EXPECT_EQ(count_good(), kCount - 1);
}

TEST_F(Volume, ADamagedRecordHeaderCostsItsValue) {
  const log::Position record = record_of(9);
  flip(disk_, log::log_file_path(record.file()), record.offset() + 8);
  for (const bool checkpoint : {true, false}) {
    SCOPED_TRACE(checkpoint);
    if (!checkpoint) erase_checkpoints();
    const Checked found = check(disk_);
    ASSERT_NE(found.find("value"), nullptr);
    EXPECT_EQ(found.find("value")->path, path(9));
    ASSERT_NE(found.find("log-damage"), nullptr);
  }
  ASSERT_NE(repair(disk_).find("value"), nullptr);
  EXPECT_EQ(count_good(), kCount - 1);
}

TEST_F(Volume, ADamagedGroupHeaderIsFound) {
  const log::Position record = record_of(30);
  uint64_t group = 0;
  LogReader::Visitor visitor;
  visitor.group = [&](const recovery::FoundGroup& found) {
    if (found.offset < record.offset()) group = found.offset;
    return true;
  };
  ASSERT_TRUE(LogReader::open(disk_)->scan(record.file(), visitor));
  flip(disk_, log::log_file_path(record.file()), group + 40);
  const Checked found = check(disk_);
  const bool told =
      std::any_of(found.findings.begin(), found.findings.end(), [&](const Finding& finding) {
        return finding.what == "no group can be recognised" && finding.offset == group;
      });
  EXPECT_TRUE(told) << found.first_error();
  EXPECT_EQ(count_good(), kCount);  // its records are found again
}

TEST_F(Volume, ADamagedOrMissingCheckpointIsReplaced) {
  for (const bool missing : {false, true}) {
    SCOPED_TRACE(missing);
    auto copy = disk_.clone_after_power_loss(1);
    const std::string newest = files_in(*copy, "checkpoint").back();
    if (missing) {
      ASSERT_TRUE(copy->erase(newest));
    } else {
      flip(*copy, newest, 100);
    }
    ASSERT_NE(check(*copy).find("checkpoint"), nullptr);
    const Checked after = repair(*copy);
    EXPECT_EQ(after.first_error(), "");
    EXPECT_EQ(after.find("checkpoint"), nullptr);
    EXPECT_EQ(missing, files_in(*copy, "quarantine").empty());
    auto store = must_open(*copy, small_options());
    EXPECT_TRUE(store->stats().used_checkpoint);
    for (int i = 0; i < kCount; i++) EXPECT_EQ(*get(*store, path(i)), value(i));
  }
}

TEST_F(Volume, ACheckpointThatSaysOtherThanTheLogIsFound) {
  using Change = std::function<void(index::Index&, index::Inode)>;
  const std::vector<Change> changes{
      [](index::Index& index, index::Inode inode) {
        index.update(inode.id, [](index::Inode& changed) { changed.attributes.uid++; });
      },
      [](index::Index& index, index::Inode inode) {
        index.update(inode.id, [](index::Inode& changed) { changed.attributes.size++; });
      },
      [](index::Index& index, index::Inode inode) {  // the bytes of another value
        const auto directory = index.find(index.find(index::kRoot, "d")->inode);
        const auto other = index.find(index.find(directory->id, "f2")->inode);
        index.restore_inode(inode, other->extents().all());
      },
      [](index::Index& index, index::Inode inode) {
        index::Name name;
        name.cookie = 5'000;
        name.parent = index::kRoot;
        name.inode = inode.id;
        name.name = "one name more";
        index.restore_name(name);
      },
      [](index::Index& index, index::Inode inode) {
        inode.id = 4'000;
        index.restore_inode(inode, {});
      },
  };
  const log::Superblock superblock = *log::read_superblock(disk_);
  for (size_t i = 0; i < changes.size(); i++) {
    SCOPED_TRACE(i);
    auto copy = disk_.clone_after_power_loss(1);
    index::Index index;
    const auto moment =
        *checkpoint::read_checkpoint(*copy, superblock.volume, superblock.checkpoint, index);
    const auto directory = index.find(index::kRoot, "d");
    changes[i](index, *index.find(index.find(directory->inode, "f1")->inode));
    ASSERT_TRUE(checkpoint::write_checkpoint(*copy, superblock.volume, superblock.checkpoint,
                                             moment, [&](const auto& use) { use(index); }));
    EXPECT_NE(check(*copy).find("index"), nullptr);
  }
}

TEST_F(Volume, ADamagedOrMissingBlobIsNamed) {
  const std::string blob = files_in(disk_, "bin").front();
  flip(disk_, blob, 70'000);
  const Checked damaged = check(disk_);
  ASSERT_NE(damaged.find("blob"), nullptr);
  EXPECT_EQ(damaged.find("blob")->path, "blob");
  EXPECT_EQ(damaged.find("blob")->offset, 65536u);
  ASSERT_TRUE(disk_.erase(blob));
  const Checked missing = check(disk_);
  ASSERT_NE(missing.find("blob"), nullptr);
  EXPECT_NE(missing.find("blob")->what.find("missing"), std::string::npos);
  EXPECT_EQ(count_good(), kCount);
}

TEST_F(Volume, AnOrphanBlobMovesAside) {
  {
    auto file = *disk_.open("bin/stray", storage::OpenMode::kCreate);
    ASSERT_TRUE(file->write(0, value(1)));
  }
  EXPECT_EQ(check(disk_).find("foreign")->file, "bin/stray");
  ASSERT_TRUE(disk_.make_directory("bin/00"));
  ASSERT_TRUE(disk_.make_directory("bin/00/77"));
  {
    auto file = *disk_.open("bin/00/77/0000000000990077", storage::OpenMode::kCreate);
    ASSERT_TRUE(file->write(0, value(2)));
  }
  ASSERT_NE(check(disk_).find("blob-orphan"), nullptr);
  EXPECT_EQ(repair(disk_).find("blob-orphan"), nullptr);
  EXPECT_EQ(*disk_.contents("quarantine/test/bin-00-77-0000000000990077"), value(2));
}

// --- a log file that is missing ---

class MissingLogFile : public Volume, public ::testing::WithParamInterface<bool> {};

TEST_P(MissingLogFile, IsAcceptedByRepair) {
  const bool with_checkpoint = GetParam();
  const auto logs = files_in(disk_, "wal");
  for (size_t victim = 0; victim < logs.size(); victim++) {
    SCOPED_TRACE(logs[victim]);
    auto copy = disk_.clone_after_power_loss(1);
    // What it holds of the values.
    std::set<std::string> gone;
    {
      const auto volume = *inspect::recover_dry(*copy, *log::read_superblock(*copy),
                                                recovery::MissingFile::kRefuse);
      volume->index->for_each_inode([&](const index::Inode& inode) {
        for (const auto& extent : inode.extents().all()) {
          if (log::log_file_path(extent.record.file()) == logs[victim]) {
            gone.insert(volume->index->path_of(inode.id));
          }
        }
      });
    }
    ASSERT_TRUE(copy->erase(logs[victim]));
    if (!with_checkpoint) {
      for (const std::string& checkpoint : files_in(*copy, "checkpoint")) {
        ASSERT_TRUE(copy->erase(checkpoint));
      }
    }
    const auto refused = open_store(*copy, small_options());
    if (refused) continue;  // nothing in it was still needed: the cleaner had retired it
    EXPECT_EQ(refused.error().code, ENODATA);
    EXPECT_NE(refused.error().what.find("valfs fsck --repair"), std::string::npos);
    ASSERT_NE(check(*copy).find("log-missing"), nullptr);
    const Checked after = repair(*copy);
    EXPECT_EQ(after.find("log-missing"), nullptr);
    std::set<std::string> named;
    for (const Finding& finding : after.findings) {
      if (finding.kind == "value") named.insert(finding.path);
    }
    // Writable again, and again without any checkpoint.
    for (int round = 0; round < 3; round++) {
      SCOPED_TRACE(round);
      auto store = must_open(*copy, small_options());
      EXPECT_EQ(check_index(*store), "");
      for (int i = 0; i < kCount; i++) {
        if (gone.count(path(i)) == 0) {
          if (!with_checkpoint && look_up(*store, path(i)) == 0) continue;  // its name was in it
          const auto bytes = get(*store, path(i));
          ASSERT_TRUE(bytes) << path(i) << ": " << bytes.error().what;
          EXPECT_EQ(*bytes, value(i)) << path(i);
          continue;
        }
        if (!with_checkpoint) continue;  // nothing says what it held
        EXPECT_EQ(named.count(path(i)), 1u) << path(i);
        const auto bytes = get(*store, path(i));
        ASSERT_FALSE(bytes) << path(i);
        EXPECT_EQ(bytes.error().code, EIO);
      }
      if (with_checkpoint) {
        const auto blob = get(*store, "blob");
        ASSERT_TRUE(blob) << blob.error().what;
        EXPECT_TRUE(*blob == pattern(1, 150'000));
      }
      EXPECT_TRUE(put(*store, "new", value(1)));
      if (round == 2) {  // what was lost can be written anew
        for (const std::string& lost : gone) {
          if (look_up(*store, lost) == 0) continue;
          ASSERT_TRUE(truncate(*store, lost, 0));
          ASSERT_TRUE(put(*store, lost, value(2)));
          EXPECT_EQ(*get(*store, lost), value(2));
        }
      }
      EXPECT_TRUE(store->close());
      store.reset();
      if (round != 0) continue;
      for (const std::string& checkpoint : files_in(*copy, "checkpoint")) {
        ASSERT_TRUE(copy->erase(checkpoint));
      }
    }
    for (const std::string& checkpoint : files_in(*copy, "checkpoint")) {
      ASSERT_TRUE(copy->erase(checkpoint));
    }
    auto store = must_open(*copy, small_options());
    for (const std::string& lost : gone) {
      if (look_up(*store, lost) != 0) {
        EXPECT_EQ(*get(*store, lost), value(2)) << lost;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoint, MissingLogFile, ::testing::Bool());

// --- trees that should not be ---

class BrokenTree : public Volume {
 protected:
  void change(const std::function<void(Transaction&)>& how) {
    auto store = must_open(disk_, small_options());
    {
      auto transaction = store->begin(Transaction::Size::of(8, 200, 0));
      ASSERT_TRUE(transaction);
      how(*transaction);
      transaction->commit(kNow);
    }
    ASSERT_TRUE(store->close());
  }
  static log::ObjectId directory(Transaction& transaction) {
    return transaction.index().find(index::kRoot, "d")->inode;
  }
  std::vector<std::string> lost_and_found() {
    auto store = must_open(disk_, small_options());
    std::vector<std::string> names;
    store->read_index([&](const index::Index& index) {
      const auto directory = index.find(index::kRoot, "lost+found");
      if (directory == nullptr) return;
      index.for_each_child(*index.find(directory->inode),
                           [&](const index::Name& name) { names.emplace_back(name.name); });
    });
    EXPECT_TRUE(store->close());
    return names;
  }
};

TEST_F(BrokenTree, LinkCountsAreSet) {
  change([](Transaction& transaction) {
    for (const char* name : {"d", "blob"}) {
      const log::ObjectId id = transaction.index().find(index::kRoot, name)->inode;
      index::Attributes attributes = transaction.index().find(id)->attributes;
      attributes.links += 3;
      transaction.put(id, attributes);
    }
  });
  EXPECT_EQ(check(disk_).diagnosis.errors, 2u);
  EXPECT_EQ(repair(disk_).first_error(), "");
  EXPECT_EQ(count_good(), kCount);
}

TEST_F(BrokenTree, ANameThatLeadsNowhereGetsAnInode) {
  change([](Transaction& transaction) {
    transaction.add_name(index::kRoot, "dangling", transaction.new_object());
  });
  ASSERT_NE(check(disk_).find("tree"), nullptr);
  EXPECT_EQ(check(disk_).find("tree")->path, "dangling");
  EXPECT_EQ(repair(disk_).first_error(), "");
}

TEST_F(BrokenTree, OrphansGoToLostAndFound) {
  log::ObjectId orphan = 0;
  change([&](Transaction& transaction) {
    const auto name = transaction.index().find(directory(transaction), "f5");
    orphan = name->inode;
    transaction.remove_name(*name);
  });
  ASSERT_NE(check(disk_).find("tree"), nullptr);
  EXPECT_EQ(check(disk_).find("tree")->what, "it has no name");
  EXPECT_EQ(repair(disk_).first_error(), "");
  const auto names = lost_and_found();
  ASSERT_EQ(names.size(), 1u);
  EXPECT_EQ(names[0], "#" + std::to_string(orphan));
  auto store = must_open(disk_, small_options());
  EXPECT_EQ(*get(*store, "lost+found/" + names[0]), value(5));
}

TEST_F(BrokenTree, ADirectoryThatLiesInItselfIsOpened) {
  change([](Transaction& transaction) {
    const auto name = transaction.index().find(index::kRoot, "d");
    const log::ObjectId inside = transaction.new_object();
    index::Attributes attributes = transaction.index().find(name->inode)->attributes;
    transaction.put(inside, attributes);
    transaction.add_name(name->inode, "inside", inside);
    transaction.add_name(inside, "d", name->inode);
    transaction.remove_name(*name);
  });
  ASSERT_NE(check(disk_).find("tree"), nullptr);
  EXPECT_EQ(repair(disk_).first_error(), "");
  const auto names = lost_and_found();
  ASSERT_EQ(names.size(), 1u);
  auto store = must_open(disk_, small_options());
  EXPECT_EQ(*get(*store, "lost+found/" + names[0] + "/f5"), value(5));
}

TEST_F(BrokenTree, ASecondNameOfADirectoryGoes) {
  change([](Transaction& transaction) {
    transaction.add_name(index::kRoot, "again", directory(transaction));
  });
  EXPECT_GT(check(disk_).diagnosis.errors, 0u);
  EXPECT_EQ(repair(disk_).first_error(), "");
  auto store = must_open(disk_, small_options());
  EXPECT_EQ(*get(*store, "again/f5"), value(5));
  EXPECT_EQ(look_up(*store, "d"), 0u);
}

TEST_F(Volume, WhatOnlyTheCheckpointKnowsIsWrittenAnew) {
  // Damage to the record of a name, and of attributes, that the checkpoint has.
  const auto volume =
      *inspect::recover_dry(disk_, *log::read_superblock(disk_), recovery::MissingFile::kRefuse);
  const auto directory = volume->index->find(index::kRoot, "d");
  const auto name = volume->index->find(directory->inode, "f11");
  for (const log::Position record : {name->record, volume->index->find(name->inode)->base}) {
    flip(disk_, log::log_file_path(record.file()), record.offset() + 30);
  }
  const Checked found = check(disk_);
  EXPECT_EQ(found.diagnosis.faded_inodes.size(), 1u);
  EXPECT_EQ(found.diagnosis.faded_names.size(), 1u);
  EXPECT_EQ(repair(disk_).find("metadata"), nullptr);
  erase_checkpoints();
  EXPECT_EQ(count_good(), kCount);
}

}  // namespace
}  // namespace valfs::test
