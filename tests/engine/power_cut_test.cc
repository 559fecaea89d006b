// Power cuts and kills at every step of random histories. After each the store must open, hold what
// a prefix of the history gives (P3) with everything that was synced in it (P2) or, if only the
// process died, everything that had returned (P1), and work on.
//
// VALFS_CUTS: how many crashes to try. VALFS_SEED: the first seed. VALFS_DEBUG: say which byte of a
// large value is wrong.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <set>

#include "tests/support/tree_model.h"

namespace valfs::test {
namespace {

using storage::CrashKind;
using storage::Operation;
using storage::OperationKind;
using storage::SimDisk;

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

// All trees that a history went through, and what was promised when.
class History {
 public:
  History() { trees_.emplace_back(); }
  const Tree& last() const { return trees_.back(); }
  size_t returned() const { return returned_; }
  size_t begun() const { return trees_.size() - 1; }
  size_t durable() const { return durable_; }

  void begin(const Action& action) {
    trees_.push_back(trees_.back());
    trees_.back().apply(action);
    actions_.push_back(action);
  }
  void returned_from(const Action& action, bool was_blob) {
    returned_ = begun();
    if (action.kind == Action::kSync || action.kind == Action::kSyncFile) durable_ = returned_;
    if (action.kind == Action::kSync || action.kind == Action::kGc ||
        action.kind == Action::kCheckpoint) {
      flushed_.push_back({returned_, 0});
    }
    if (action.kind == Action::kSyncFile) {
      flushed_.push_back({returned_, last().find(action.path)});
    } else if (action.kind == Action::kRename && was_blob) {  // flushed before it was renamed
      flushed_.push_back({returned_ - 1, last().find(action.other)});
    }
  }
  // The value moved to bin/ by the action that has returned: what it was before is durable.
  void moved_to_blob(Tree::Id id) { flushed_.push_back({returned_ - 1, id}); }
  // The action under way may do so.
  void may_move_to_blob(Tree::Id id) { blobs_.insert(id); }

  std::string text(size_t count) const {
    std::string text;
    for (size_t i = 0; i < count && i < actions_.size(); i++) {
      text += std::to_string(i + 1) + " " + actions_[i].text() + "\n";
    }
    return text;
  }

  // "" if the image is one of the trees low … high; else how it differs from the best of them.
  std::string match(const StoreImage& image, size_t low, size_t high, size_t& matched) const {
    std::string best;
    for (size_t at = high + 1; at-- > low;) {
      const std::string differs = difference(
          image, trees_[at], [&](Tree::Id id, const Bytes& found) { return may_be(id, found); });
      if (differs.empty()) {
        matched = at;
        return "";
      }
      best += "\n  not as after " + std::to_string(at) + ": " + differs;
    }
    return best;
  }

  const Tree& tree(size_t at) const { return trees_[at]; }

 private:
  struct Flush {
    size_t at;
    Tree::Id id;  // 0: all
  };

  // Bytes in bin/ may lag, each for itself, up to the last flush; the size, too.
  bool may_be(Tree::Id id, const Bytes& found) const {
    if (blobs_.count(id) == 0) return false;
    size_t from = 0;
    for (const Flush& flush : flushed_) {
      if (flush.id == id || flush.id == 0) from = std::max(from, flush.at);
    }
    std::vector<const Bytes*> versions;
    size_t least = SIZE_MAX;
    size_t most = 0;
    for (size_t at = from; at < trees_.size(); at++) {
      const Tree::Node* node = trees_[at].node(id);
      if (node == nullptr) continue;
      if (!versions.empty() && versions.back() == node->bytes.get()) continue;
      versions.push_back(node->bytes.get());
      least = std::min(least, node->bytes->size());
      most = std::max(most, node->bytes->size());
    }
    if (found.size() < least || found.size() > most) return false;
    for (size_t i = 0; i < found.size(); i++) {
      bool known = false;
      for (const Bytes* version : versions) {
        known |= i < version->size() && (*version)[i] == found[i];
      }
      if (!known) {
        if (std::getenv("VALFS_DEBUG") != nullptr) {
          std::cout << "byte " << i << " is " << int(found[i]) << ", may be";
          for (const Bytes* version : versions) {
            std::cout << " " << (i < version->size() ? int((*version)[i]) : -1);
          }
          std::cout << " (from " << from << ")\n";
        }
        return false;
      }
    }
    return true;
  }

  std::vector<Tree> trees_;
  std::vector<Action> actions_;
  std::vector<Flush> flushed_;
  std::set<Tree::Id> blobs_;
  size_t returned_ = 0;
  size_t durable_ = 0;
};

struct Totals {
  uint64_t cuts = 0;
  uint64_t second_cuts = 0;
  uint64_t dropped = 0;
  uint64_t drained = 0;
  uint64_t with_checkpoint = 0;
};

class Crash {
 public:
  Crash(const History& history, Totals& totals) : history_(history), totals_(totals) {}

  // Opens what a crash has left, and checks it.
  void check(SimDisk& disk, CrashKind kind, uint64_t seed) {
    std::mt19937_64 random(seed);
    trace_ = kind == CrashKind::kPowerLoss ? "power cut" : "killed";
    totals_.cuts++;
    const bool killed = kind == CrashKind::kProcessKill;
    size_t low = killed ? history_.returned() : history_.durable();
    size_t high = history_.begun();
    // Every third recovery is cut itself, every other of those twice.
    for (int depth = 0; depth < 2 && random() % 3 == 0; depth++) {
      disk.cut_at(1 + random() % 12);
      auto store = open_store(disk, small_options());
      if (disk.powered() && store) {
        trace_ += ", recovered once";
        break;
      }
      if (disk.powered()) return fail_with("opening: " + store.error().what, seed);
      if (store) (*store).reset();
      // What only a killed daemon's staging memory holds is safe once recovery has written it, but
      // the power may go before that.
      const CrashKind next =
          killed ? kind : (random() % 4 == 0 ? CrashKind::kProcessKill : CrashKind::kPowerLoss);
      disk.restart(next);
      totals_.second_cuts++;
      trace_ += next == CrashKind::kPowerLoss ? ", recovery cut" : ", recovery killed";
    }
    disk.cut_at(1'000'000'000);
    FakeClock clock;
    auto opened = open_store(disk, small_options(clock));
    if (!opened) return fail_with("opening: " + opened.error().what, seed);
    std::unique_ptr<Store> store = std::move(*opened);
    const auto stats = store->stats();
    totals_.dropped += stats.dropped_groups;
    totals_.drained += stats.drained_groups;
    totals_.with_checkpoint += stats.used_checkpoint ? 1 : 0;
    if (stats.damaged_groups + stats.damaged_values > 0) {
      std::string text = "damage found: ";
      for (const auto& warning : store->recovery_warnings()) text += warning + "; ";
      return fail_with(text, seed);
    }
    StoreImage image = StoreImage::of(*store);
    size_t matched = 0;
    const std::string differs = history_.match(image, low, high, matched);
    if (!differs.empty()) return fail_with("no prefix fits:" + differs, seed);
    if (const auto bad = check_index(*store); !bad.empty()) return fail_with(bad, seed);
    work_on(disk, clock, std::move(store), image, random, seed);
  }

 private:
  void fail_with(const std::string& what, uint64_t seed) {
    ADD_FAILURE() << trace_ << ": crash seed " << seed << " after " << history_.returned() << " of "
                  << history_.begun() << " begun, synced " << history_.durable() << ": " << what
                  << "\n"
                  << history_.text(history_.begun());
  }

  // What was found stays found; what is synced now survives the next cut.
  void work_on(SimDisk& disk, FakeClock& clock, std::unique_ptr<Store> store, StoreImage& image,
               std::mt19937_64& random, uint64_t seed) {
    const Bytes bytes = pattern(seed, 1 + random() % 20000);
    auto good = put(*store, "after", bytes);
    if (good && random() % 4 == 0) good = store->gc().has_value() ? Status{} : fail(EIO, "gc");
    if (good && random() % 8 == 0) store->tick();
    if (good) good = random() % 4 == 0 ? store->close() : store->sync();
    if (!good) return fail_with("working on: " + good.error().what, seed);
    store.reset();
    disk.restart(CrashKind::kPowerLoss);
    if (random() % 4 == 0) {  // the log alone is the whole truth
      for (const std::string& path : disk.files()) {
        if (path.rfind("checkpoint/", 0) == 0) (void)disk.erase(path);
      }
    }
    auto opened = open_store(disk, small_options(clock));
    if (!opened) return fail_with("opening again: " + opened.error().what, seed);
    store = std::move(*opened);
    StoreImage again = StoreImage::of(*store);
    const auto after = again.paths.find("after");
    if (after == again.paths.end() || after->second.bytes != bytes) {
      return fail_with("what was synced is not there", seed);
    }
    again.paths.erase(after);
    if (!again.error.empty()) return fail_with("second time: " + again.error, seed);
    if (again.paths.size() != image.paths.size()) return fail_with("other paths later", seed);
    for (const auto& [path, entry] : image.paths) {
      const auto& later = again.paths[path];
      if (later.bytes != entry.bytes || later.links != entry.links || later.inode != entry.inode ||
          later.permissions != entry.permissions) {
        return fail_with(path + " differs later", seed);
      }
    }
    if (const auto bad = check_index(*store); !bad.empty()) return fail_with(bad, seed);
  }

  const History& history_;
  Totals& totals_;
  std::string trace_;
};

// Runs one history and crashes copies of the disk on its way.
void run_history(uint64_t seed, size_t sector_size, bool large, uint64_t rarity, Totals& totals) {
  SCOPED_TRACE("VALFS_SEED=" + std::to_string(seed) + " sectors of " + std::to_string(sector_size) +
               (large ? ", with blobs" : ""));
  std::mt19937_64 random(seed);
  SimDisk disk({.seed = seed, .sector_size = sector_size});
  FakeClock clock;
  History history;
  auto store = must_open(disk, small_options(clock));
  Crash crash(history, totals);
  // Each crash is one at an operation of the disk: the clone has nothing of it yet.
  disk.set_fault([&](const Operation& operation) {
    const bool observes = operation.kind >= OperationKind::kOpen;
    if (observes || random() % rarity != 0 || ::testing::Test::HasFailure()) return 0;
    for (uint64_t subset = 0; subset < 1 + random() % 3; subset++) {
      const uint64_t crash_seed = random();
      if (random() % 4 == 0) {
        crash.check(*disk.clone_after_process_kill(crash_seed), CrashKind::kProcessKill,
                    crash_seed);
      } else {
        crash.check(*disk.clone_after_power_loss(crash_seed), CrashKind::kPowerLoss, crash_seed);
      }
    }
    return 0;
  });
  ActionSource source(seed * 31 + 7, large);
  const uint64_t count = 30 + random() % 50;
  for (uint64_t i = 0; i < count && !::testing::Test::HasFailure(); i++) {
    const Action action = source.next(history.last());
    const bool names_file = !action.path.empty();
    const auto blob_of = [&](const std::string& path) {
      return attributes_of(*store, look_up(*store, path)).blob;
    };
    const uint64_t blob_before = names_file ? blob_of(action.path) : 0;
    history.begin(action);
    if (action.kind == Action::kWrite && action.offset + action.length > 32 * kKiB) {
      history.may_move_to_blob(history.last().find(action.path));
    }
    const auto done = run(*store, clock, action);
    ASSERT_TRUE(done) << action.text() << ": " << done.error().what << "\n"
                      << history.text(history.begun());
    history.returned_from(action, blob_before != 0);
    if (action.kind == Action::kWrite && blob_before == 0 && blob_of(action.path) != 0) {
      history.moved_to_blob(history.last().find(action.path));
    }
    if (random() % 4 == 0) disk.step();
  }
  disk.set_fault({});
  if (::testing::Test::HasFailure()) return;
  const StoreImage image = StoreImage::of(*store);
  EXPECT_EQ(difference(image, history.last()), "") << history.text(history.begun());
  EXPECT_EQ(check_index(*store), "");
  EXPECT_TRUE(store->close());
}

void run_cuts(uint64_t salt, size_t sector_size, bool large) {
  const uint64_t wanted = from_environment("VALFS_CUTS", 4000) / 4;
  const uint64_t first = from_environment("VALFS_SEED", 1) + salt;
  ::testing::Test::RecordProperty("first_seed", std::to_string(first));
  const auto start = std::chrono::steady_clock::now();
  Totals totals;
  uint64_t histories = 0;
  for (uint64_t seed = first; totals.cuts < wanted && !::testing::Test::HasFailure(); seed++) {
    run_history(seed, sector_size, large, 6, totals);
    histories++;
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::cout << totals.cuts << " crashes (and " << totals.second_cuts << " of recoveries) in "
            << histories << " histories from seed " << first << ", "
            << static_cast<uint64_t>(static_cast<double>(totals.cuts) / seconds)
            << " a second; groups drained " << totals.drained << ", dropped " << totals.dropped
            << "; mounts with a checkpoint " << totals.with_checkpoint << "\n";
}

TEST(PowerCut, SmallValuesLargeSectors) {
  run_cuts(0, 4096, false);
}
TEST(PowerCut, SmallValuesSmallSectors) {
  run_cuts(100'000, 512, false);
}
TEST(PowerCut, LargeValuesLargeSectors) {
  run_cuts(200'000, 4096, true);
}
TEST(PowerCut, LargeValuesSmallSectors) {
  run_cuts(300'000, 512, true);
}

}  // namespace
}  // namespace valfs::test
