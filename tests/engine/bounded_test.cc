// All workloads of one and of two operations, with and without a sync behind each, cut at every
// operation of the disk (T3; bounded exhaustive testing as in CrashMonkey and ACE, OSDI '18: most
// crash bugs need no more than a few operations on a few files). After each cut the store must hold
// a prefix of the workload with all that was synced in it (P2, P3, P5, P6), and after a kill all
// that had returned (P1).
//
// Of workloads of three operations CI tries a sample; VALFS_NIGHTLY all, and more subsets of lost
// sectors. VALFS_CASE=name,name… runs one workload.
#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <iostream>
#include <sstream>

#include "tests/support/compressed.h"
#include "tests/support/crash_check.h"

namespace valfs::test {
namespace {

using storage::CrashKind;
using storage::Operation;
using storage::OperationKind;
using storage::SimDisk;

constexpr uint64_t kLarge = 40 * kKiB;  // goes to bin/

struct Step {
  std::string name;
  std::vector<Action> actions;  // most are one
};

// On the files a (2 000 bytes), b (100 bytes), L (large, in bin/), the directory d with the file
// d/c, and the empty directory e.
std::vector<Step> vocabulary() {
  return {
      {"create", {{Action::kCreate, "n", "", 0, 0, 0}}},
      {"append", {{Action::kWrite, "a", "", 2000, 3000, 11}}},
      {"overwrite", {{Action::kWrite, "a", "", 500, 700, 12}}},
      {"write-whole", {{Action::kWrite, "a", "", 0, 2000, 13}}},
      {"write-behind-end", {{Action::kWrite, "b", "", 5000, 100, 14}}},
      {"truncate-0", {{Action::kTruncate, "a", "", 0, 0, 0}}},
      {"shorten", {{Action::kTruncate, "a", "", 600, 0, 0}}},
      {"lengthen", {{Action::kTruncate, "a", "", 9000, 0, 0}}},
      {"punch", {{Action::kPunch, "a", "", 400, 900, 0}}},
      {"rename", {{Action::kRename, "a", "m", 0, 0, 0}}},
      {"rename-over", {{Action::kRename, "a", "b", 0, 0, 0}}},
      {"rename-into", {{Action::kRename, "b", "d/b", 0, 0, 0}}},
      {"rename-directory", {{Action::kRename, "d", "e/d", 0, 0, 0}}},
      {"link", {{Action::kLink, "a", "d/l", 0, 0, 0}}},
      {"unlink", {{Action::kRemove, "a", "", 0, 0, 0}}},
      {"unlink-below", {{Action::kRemove, "d/c", "", 0, 0, 0}}},
      {"mkdir", {{Action::kMakeDirectory, "d/s", "", 0, 0, 0}}},
      {"rmdir", {{Action::kRemove, "e", "", 0, 0, 0}}},
      {"chmod", {{Action::kChangeMode, "a", "", 0600, 0, 0}}},
      {"replace",  // P5
       {{Action::kCreate, "t", "", 0, 0, 0},
        {Action::kWrite, "t", "", 0, 4000, 15},
        {Action::kRename, "t", "a", 0, 0, 0}}},
      {"grow-large", {{Action::kWrite, "a", "", 0, kLarge, 16}}},
      {"append-large", {{Action::kWrite, "L", "", kLarge, 5000, 17}}},
      {"overwrite-large", {{Action::kWrite, "L", "", 30'000, 5000, 18}}},
      {"shorten-large", {{Action::kTruncate, "L", "", 35'000, 0, 0}}},
      {"empty-large", {{Action::kTruncate, "L", "", 0, 0, 0}}},
      {"unlink-large", {{Action::kRemove, "L", "", 0, 0, 0}}},
  };
}

enum class Sync { kNone, kFile, kAll };
constexpr Sync kSyncs[] = {Sync::kNone, Sync::kFile, Sync::kAll};

bool makes_sense(const Tree& tree, const Action& action) {
  const Tree::Id id = tree.find(action.path);
  const auto parent_is_there = [&](const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos || tree.find(path.substr(0, slash)) != 0;
  };
  switch (action.kind) {
    case Action::kCreate:
    case Action::kMakeDirectory:
      return id == 0 && parent_is_there(action.path);
    case Action::kRename:
      return id != 0 && parent_is_there(action.other) &&
             !(tree.node(id)->directory && tree.find(action.other) != 0);
    case Action::kLink:
      return id != 0 && tree.find(action.other) == 0 && parent_is_there(action.other);
    case Action::kRemove: {
      if (id == 0 || !tree.node(id)->directory) return id != 0;
      const auto below = tree.paths().lower_bound(action.path + "/");
      return below == tree.paths().end() || below->first.rfind(action.path + "/", 0) != 0;
    }
    default:
      return id != 0;
  }
}

// What all workloads start from.
struct Settled {
  Compression compression = Compression::kNone;
  std::unique_ptr<SimDisk> disk;
  History history;
};

class Bounded {
 public:
  explicit Bounded(uint64_t subsets) : subsets_(subsets), steps_(vocabulary()) {}

  // All workloads of that many steps, or every `stride`th from the `first` on.
  void run_all(size_t length, uint64_t first, uint64_t stride) {
    const auto start = std::chrono::steady_clock::now();
    const uint64_t choices = steps_.size() * std::size(kSyncs);
    uint64_t count = 1;
    for (size_t i = 0; i < length; i++) count *= choices;
    for (uint64_t number = first; number < count; number += stride) {
      std::vector<std::pair<const Step*, Sync>> workload;
      for (uint64_t rest = number, i = 0; i < length; i++, rest /= choices) {
        workload.emplace_back(&steps_[rest % choices / std::size(kSyncs)],
                              kSyncs[rest % std::size(kSyncs)]);
      }
      run(workload, number);
      if (::testing::Test::HasFailure()) break;
    }
    std::cout << workloads_ << " workloads of " << length << ": " << totals_.text(start) << "\n";
  }

  uint64_t workloads() const { return workloads_; }
  const CrashTotals& totals() const { return totals_; }

 private:
  void run(const std::vector<std::pair<const Step*, Sync>>& workload, uint64_t number) {
    std::string name;
    for (const auto& [step, sync] : workload) {
      name += (name.empty() ? "" : ",") + step->name +
              (sync == Sync::kNone   ? ""
               : sync == Sync::kFile ? "+fsync"
                                     : "+sync");
    }
    const char* only = std::getenv("VALFS_CASE");
    if (only != nullptr && name != only) return;
    SCOPED_TRACE("VALFS_CASE=" + name);
    // In every other workload, and with every other sync, what there is has been compressed.
    const Settled& start = std::popcount(number) % 2 == 0 ? plain_ : compressed_;
    const auto disk = start.disk->clone_after_process_kill(number + 1);
    History history = start.history;
    FakeClock clock;
    const StoreOptions options = options_for(start.compression, clock);
    auto store = must_open(*disk, options);
    CrashCheck check(history, options, totals_, {false, false});
    uint64_t cuts = 0;
    const auto cut = [&] {
      for (uint64_t subset = 0; subset < subsets_; subset++) {
        const uint64_t seed = number * 1000 + cuts * 10 + subset;
        check.check(*disk->clone_after_power_loss(seed), CrashKind::kPowerLoss, seed);
      }
      if (cuts++ % 3 == 0)
        check.check(*disk->clone_after_process_kill(1), CrashKind::kProcessKill, 1);
    };
    const auto act = [&](const Action& action) {
      const auto done = history.run(*store, clock, action);
      ASSERT_TRUE(done) << action.text() << ": " << done.error().what;
    };
    disk->set_fault([&](const Operation& operation) {
      if (operation.kind < OperationKind::kOpen && !::testing::Test::HasFailure()) cut();
      return 0;
    });
    for (const auto& [step, sync] : workload) {
      for (const Action& action : step->actions) {
        if (!makes_sense(history.last(), action)) return;
        act(action);
      }
      const Action& last = step->actions.back();
      const std::string& path = last.other.empty() ? last.path : last.other;
      if (sync == Sync::kAll) act({Action::kSync, "", "", 0, 0, 0});
      // Of what is gone there is nothing to sync but the directory: fsync of the root.
      const bool there = history.last().find(path) != 0;
      if (sync == Sync::kFile) act({there ? Action::kSyncFile : Action::kSync, path, "", 0, 0, 0});
    }
    cut();
    workloads_++;
    // And what the timed commit would do.
    clock.advance(std::chrono::milliseconds(200));
    store->tick();
    while (disk->step()) {
    }
    cut();
  }

  static StoreOptions options_for(Compression compression, const FakeClock& clock) {
    StoreOptions options = small_options(clock);
    options.compression = compression;
    return options;
  }

  // The files that the workloads work on, durable.
  static Settled settle(Compression compression) {
    Settled settled;
    settled.compression = compression;
    SimDisk disk({.seed = 1, .sector_size = 512});
    FakeClock clock;
    auto store = must_open(disk, options_for(compression, clock));
    for (const Action& action : std::vector<Action>{
             {Action::kCreate, "a", "", 0, 0, 0},
             {Action::kWrite, "a", "", 0, 2000, 3},
             {Action::kCreate, "b", "", 0, 0, 0},
             {Action::kWrite, "b", "", 0, 100, 2},
             {Action::kCreate, "L", "", 0, 0, 0},
             {Action::kWrite, "L", "", 0, kLarge, 3},
             {Action::kMakeDirectory, "d", "", 0, 0, 0},
             {Action::kCreate, "d/c", "", 0, 0, 0},
             {Action::kWrite, "d/c", "", 0, 10, 4},
             {Action::kMakeDirectory, "e", "", 0, 0, 0},
             {Action::kSync, "", "", 0, 0, 0},
         }) {
      EXPECT_TRUE(settled.history.run(*store, clock, action));
    }
    if (compression != Compression::kNone) {
      EXPECT_TRUE(clean_all(*store));
      EXPECT_EQ(how_stored(*store, "a"), Stored::kCompressed);
    }
    EXPECT_TRUE(store->close());
    store.reset();
    settled.disk = disk.clone_after_power_loss(1);
    return settled;
  }

  const uint64_t subsets_;
  const std::vector<Step> steps_;
  const Settled plain_ = settle(Compression::kNone);
  const Settled compressed_ = settle(Compression::kLz4);
  CrashTotals totals_;
  uint64_t workloads_ = 0;
};

TEST(Bounded, P1_P2_P3_P5_P6_AllWorkloadsOfOneOperation) {
  Bounded bounded(nightly() ? 30 : std::max<uint64_t>(1, with_effort(10)));
  bounded.run_all(1, 0, 1);
  if (std::getenv("VALFS_CASE") == nullptr) {
    EXPECT_EQ(bounded.workloads(), vocabulary().size() * 3);
  }
}

// Cut into parts, for the cores of the machine.
constexpr uint64_t kParts = 4;
class Parts : public ::testing::TestWithParam<uint64_t> {};

TEST_P(Parts, P1_P2_P3_P5_P6_AllWorkloadsOfTwoOperations) {
  Bounded bounded(nightly() ? 4 : 1);
  bounded.run_all(2, GetParam(), kParts * 100 / with_effort(100));
}

TEST_P(Parts, P1_P2_P3_P5_P6_SomeWorkloadsOfThreeOperations) {
  Bounded bounded(1);
  bounded.run_all(3, 7 + GetParam() * 100, kParts * (nightly() ? 1 : 601 * 100 / with_effort(100)));
}

INSTANTIATE_TEST_SUITE_P(Bounded, Parts, ::testing::Range(uint64_t{0}, kParts));

}  // namespace
}  // namespace valfs::test
