// The k-th I/O fails (T5): with EIO, with ENOSPC, or cut short; once, or it and all that come
// after, or all that touch the same block. Whatever it was, nothing acknowledged as durable may be
// missing after power loss (P2), nothing that returned after a kill (P1), no wrong byte may be read
// (P0), errors stick (P8), and nothing aborts or hangs.
//
// VALFS_NIGHTLY: every k; else a sample, of which VALFS_SEED sets the first.
// VALFS_CASE=k:error:sticky runs one case of a test.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <unistd.h>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <iostream>

#include "tests/support/crash_check.h"

namespace valfs::test {
namespace {

using storage::CrashKind;
using storage::Operation;
using storage::OperationKind;
using storage::SimDisk;

constexpr uint64_t kBlock = storage::kBlockSize;
constexpr int kErrors[] = {EIO, ENOSPC, SimDisk::kShort};

enum Reach { kOnce, kForGood, kBlockForGood };
constexpr Reach kReaches[] = {kOnce, kForGood, kBlockForGood};

struct Case {
  uint64_t k = 0;  // 1 is the first
  int error = EIO;
  Reach reach = kOnce;

  std::string text() const {
    return "VALFS_CASE=" + std::to_string(k) + ":" + std::to_string(error) + ":" +
           std::to_string(reach);
  }
};

// An abort says which case it was.
char running[64];
void say_case(int) {
  (void)!::write(STDERR_FILENO, running, sizeof running);
  (void)!::write(STDERR_FILENO, "\n", 1);
}

// Fails the k-th I/O of a disk, observations counted.
class Faults {
 public:
  Faults(SimDisk& disk, const Case& the_case) : disk_(disk), case_(the_case) {
    std::snprintf(running, sizeof running, "%s", case_.text().c_str());
    std::signal(SIGABRT, say_case);
    spdlog::set_level(spdlog::level::off);  // it has much to say here
    disk.set_fault([this](const Operation& operation) { return ask(operation); });
  }
  ~Faults() { disk_.set_fault({}); }
  Faults(const Faults&) = delete;

  uint64_t seen() const { return seen_; }
  bool hit() const { return case_.k != 0 && seen_ >= case_.k; }
  // The test looks at the disk by itself.
  void pause() { paused_ = true; }
  void go_on() { paused_ = false; }
  // Files in bin/ of which an fsync has failed.
  const std::set<std::string>& unsynced_blobs() const { return unsynced_blobs_; }

 private:
  int ask(const Operation& operation) {
    if (paused_) return 0;
    seen_++;
    if (seen_ == case_.k) {
      path_ = operation.path;
      // A block in the middle of what it asks for.
      block_ = (operation.offset + operation.length / 2) / kBlock;
    }
    const uint64_t last = std::max<uint64_t>(operation.length, 1) + operation.offset - 1;
    const bool touches =
        operation.path == path_ && operation.offset / kBlock <= block_ && last / kBlock >= block_;
    const bool fails =
        case_.k != 0 &&
        (seen_ == case_.k || (seen_ > case_.k && (case_.reach == kForGood ||
                                                  (case_.reach == kBlockForGood && touches))));
    if (std::getenv("VALFS_DEBUG") != nullptr && seen_ + 60 > case_.k && seen_ < case_.k + 30) {
      std::cout << (fails ? "FAILS " : "") << seen_ << " " << int(operation.kind) << " "
                << operation.path << " " << operation.offset << "+" << operation.length << "\n";
    }
    if (!fails) return 0;
    if (operation.kind == OperationKind::kSync && operation.path.rfind("bin/", 0) == 0) {
      unsynced_blobs_.insert(operation.path);
    }
    // By the storage's contract a short read says that the file ends. In bin/ it may: what a sparse
    // file lacks reads as zeros.
    const bool ends = case_.error == SimDisk::kShort && operation.path.rfind("bin/", 0) == 0;
    return ends ? EIO : case_.error;
  }

  SimDisk& disk_;
  const Case case_;
  uint64_t seen_ = 0;
  bool paused_ = false;
  std::string path_;  // of the k-th
  uint64_t block_ = 0;
  std::set<std::string> unsynced_blobs_;
};

StoreOptions options_with(const FakeClock& clock) {
  StoreOptions options = small_options(clock);
  options.log_file_size = 128 * kKiB;
  options.checkpoint_after = 128 * kKiB;
  return options;
}

std::string blob_path_of(Store& store, log::ObjectId inode) {
  char path[48];
  const uint64_t blob = attributes_of(store, inode).blob;
  std::snprintf(path, sizeof path, "bin/%02x/%02x/%016lx", static_cast<unsigned>(blob >> 8 & 0xff),
                static_cast<unsigned>(blob & 0xff), static_cast<unsigned long>(blob));
  return path;
}

// One run of the workload.
class Workload {
 public:
  static constexpr uint64_t kActions = 400;

  explicit Workload(const Case& the_case) : faults_(disk_, the_case) {}

  // Returns how many I/Os there were.
  uint64_t go() {
    auto opened = open_store(disk_, options_);
    if (opened) {
      store_ = std::move(*opened);
      ActionSource source(kSeed, true);
      for (uint64_t i = 0; i < kActions && !::testing::Test::HasFailure(); i++) {
        step(source.next(history_.last()));
        if (i % 3 == 0) read_some(i);
        if (i % 5 == 0) disk_.step();
      }
      check_crash(CrashKind::kPowerLoss, "after the workload");
      check_crash(CrashKind::kProcessKill, "after the workload");
      close();
    } else {
      EXPECT_TRUE(faults_.hit()) << opened.error().what;
    }
    const uint64_t seen = faults_.seen();
    disk_.restart(CrashKind::kPowerLoss);
    check_left(disk_, CrashKind::kPowerLoss, "at last");
    return seen;
  }

 private:
  static constexpr uint64_t kSeed = 20;

  void fail_with(const std::string& what) {
    ADD_FAILURE() << running << ": " << what << "\n" << history_.text();
  }

  void step(const Action& action) {
    const bool failed_before = !store_->stats().failure.empty();
    const auto done = history_.run(*store_, clock_, action);
    if (done) {
      if (failed_before && (action.kind == Action::kSync || changes_something())) {
        fail_with("P8: the log has failed, yet this returned 0: " + action.text());
      }
      if (action.kind == Action::kSync) check_sync_was_honest();
      return;
    }
    if (!faults_.hit()) fail_with(action.text() + ": " + done.error().what);
    if (failed_before && ++failures_ % 8 != 0) return history_.take_back();
    // Nothing has changed, or all of it has.
    faults_.pause();
    const StoreImage image = StoreImage::of(*store_);
    const bool as_before = difference(image, history_.tree(history_.begun() - 1)).empty();
    const bool as_after = difference(image, history_.last()).empty();
    if (as_before || !as_after) history_.take_back();  // else it counts as begun, not as returned
    if (!as_before && !as_after) {
      const auto differs = history_.match(image, history_.begun(), history_.begun());
      if (!differs.empty()) {
        fail_with("failed half way: " + action.text() + ": " + done.error().what + differs);
      }
    }
    if (checks_++ % 8 == 0) check_crash(CrashKind::kPowerLoss, "after " + action.text());
    faults_.go_on();
  }

  // The last action did, or said that all is durable.
  bool changes_something() const {
    const Action& action = history_.action();
    const Tree& before = history_.tree(history_.begun() - 1);
    const Tree& after = history_.last();
    if (action.kind == Action::kSyncFile) return true;
    if (before.paths() != after.paths()) return true;
    const Tree::Node* was = before.node(before.find(action.path));
    const Tree::Node* is = after.node(after.find(action.path));
    return was != nullptr && is != nullptr &&
           (was->permissions != is->permissions || (was->bytes && *was->bytes != *is->bytes));
  }

  // P8: while a value has bytes whose fsync failed, nobody is told that all is durable.
  void check_sync_was_honest() {
    if (faults_.unsynced_blobs().empty()) return;
    std::vector<log::ObjectId> blobs;
    store_->read_index([&](const index::Index& index) {
      index.for_each_inode([&](const index::Inode& inode) {
        if (inode.attributes.blob != 0) blobs.push_back(inode.id);
      });
    });
    for (const log::ObjectId inode : blobs) {
      if (faults_.unsynced_blobs().count(blob_path_of(*store_, inode)) > 0) {
        fail_with("P8: sync returned 0, and has forgotten that an fsync had failed");
      }
    }
  }

  // The right bytes, or an error.
  void read_some(uint64_t i) {
    const auto& paths = history_.last().paths();
    if (paths.empty()) return;
    const auto at = std::next(paths.begin(), static_cast<ptrdiff_t>(i % paths.size()));
    const Tree::Node& node = *history_.last().node(at->second);
    if (node.directory) return;
    store_->drop_caches();
    const auto bytes = get(*store_, at->first);
    if (!bytes && !faults_.hit()) fail_with("reading " + at->first + ": " + bytes.error().what);
    if (!bytes || same_bytes(*bytes, *node.bytes)) return;
    if (history_.may_hold(at->second, *bytes)) return;  // a failed write has changed some
    fail_with("P0: wrong bytes in " + at->first);
  }

  void close() {
    const bool failed_before = !store_->stats().failure.empty();
    const auto closed = store_->close();
    if (closed) {
      if (failed_before) fail_with("P8: close returned 0 though the log has failed");
      history_.begin({Action::kSync, "", "", 0, 0, 0});
      history_.returned_from({Action::kSync, "", "", 0, 0, 0}, false);
    } else if (!faults_.hit()) {
      fail_with("close: " + closed.error().what);
    }
    store_.reset();
  }

  void check_crash(CrashKind kind, const std::string& when) {
    faults_.pause();
    for (uint64_t seed = 1; seed <= 2 && !::testing::Test::HasFailure(); seed++) {
      const auto disk = kind == CrashKind::kPowerLoss ? disk_.clone_after_power_loss(seed)
                                                      : disk_.clone_after_process_kill(seed);
      check_left(*disk, kind, when);
    }
    faults_.go_on();
  }

  // A healthy disk, on which everything that was promised is there.
  void check_left(SimDisk& disk, CrashKind kind, const std::string& when) {
    faults_.pause();
    const bool killed = kind == CrashKind::kProcessKill;
    const std::string what = std::string(killed ? "kill " : "power loss ") + when + ": ";
    auto store = open_store(disk, options_);
    if (!store) return fail_with(what + store.error().what);
    const auto stats = (*store)->stats();
    if (stats.damaged_groups + stats.damaged_values > 0) {
      std::string text = what + "damage found: ";
      for (const auto& warning : (*store)->recovery_warnings()) text += warning + "; ";
      return fail_with(text);
    }
    const StoreImage image = StoreImage::of(**store);
    const size_t low = killed ? history_.returned() : history_.durable();
    const std::string differs = history_.match(image, low, history_.begun());
    if (!differs.empty()) return fail_with(what + "no prefix fits:" + differs);
    if (const auto bad = check_index(**store); !bad.empty()) return fail_with(what + bad);
  }

  SimDisk disk_{{.seed = 5}};
  FakeClock clock_;
  const StoreOptions options_ = options_with(clock_);
  History history_;
  Faults faults_;
  std::unique_ptr<Store> store_;
  uint64_t failures_ = 0;
  uint64_t checks_ = 0;
};

// All cases, or a sample of them. Returns how many were tried.
template <class Try>
uint64_t sweep(uint64_t count, uint64_t sample, Try try_case) {
  if (const char* text = std::getenv("VALFS_CASE")) {
    Case one;
    int reach = 0;
    EXPECT_EQ(std::sscanf(text, "%lu:%d:%d", &one.k, &one.error, &reach), 3);
    one.reach = static_cast<Reach>(reach);
    try_case(one);
    return 1;
  }
  const uint64_t stride = nightly() ? 1 : std::max<uint64_t>(1, count / with_effort(sample));
  uint64_t cases = 0;
  for (const int error : kErrors) {
    for (const Reach reach : kReaches) {
      // Another residue for each: together they touch more places.
      const uint64_t first = 1 + (from_environment("VALFS_SEED", 1) + cases) % stride;
      for (uint64_t k = first; k <= count; k += stride) {
        try_case({k, error, reach});
        cases++;
        if (::testing::Test::HasFailure()) return cases;
      }
    }
  }
  return cases;
}

void say(uint64_t cases, std::chrono::steady_clock::time_point since) {
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
  std::cout << cases << " cases, VALFS_SEED=" << from_environment("VALFS_SEED", 1) << ", "
            << static_cast<uint64_t>(static_cast<double>(cases) / seconds) << " a second\n";
}

TEST(IoError, P0_P1_P2_P8_EveryKthIoOfAWorkload) {
  const uint64_t count = Workload({}).go();
  ASSERT_GT(count, 1000u);
  // Has found something: a moved group that its manifest did not know counted as freed.
  Workload({1863, EIO, kBlockForGood}).go();
  const auto start = std::chrono::steady_clock::now();
  say(sweep(count, 200, [](const Case& the_case) { Workload(the_case).go(); }), start);
}

// A volume that a crash has left, opened while the k-th I/O fails.
class RecoveryRun {
 public:
  // Makes the volume: a history that ends in a crash.
  RecoveryRun(uint64_t seed, CrashKind kind) : kind_(kind) {
    SimDisk disk({.seed = seed});
    auto store = must_open(disk, options_);
    ActionSource source(seed, true);
    for (int i = 0; i < 120; i++) {
      const Action sync{Action::kSync, "", "", 0, 0, 0};
      const auto done = history_.run(*store, clock_, i == 90 ? sync : source.next(history_.last()));
      EXPECT_TRUE(done) << done.error().what;
    }
    left_ = kind == CrashKind::kPowerLoss ? disk.clone_after_power_loss(seed)
                                          : disk.clone_after_process_kill(seed);
    store.reset();
  }

  // Returns how many I/Os there were.
  uint64_t go(const Case& the_case) {
    const auto disk = left_->clone_after_process_kill(1);
    uint64_t seen = 0;
    bool damaged = false;
    {
      Faults faults(*disk, the_case);
      auto store = open_store(*disk, options_);
      if (store) {
        faults.pause();
        damaged = check(**store, "opened in spite of it", true);
        const bool closed = the_case.k % 2 == 0 && (*store)->close().has_value();
        (*store).reset();
        if (closed && kind_ == CrashKind::kPowerLoss) disk->restart(CrashKind::kPowerLoss);
      } else {
        EXPECT_TRUE(faults.hit()) << store.error().what;
      }
      seen = faults.seen();
    }
    if (::testing::Test::HasFailure()) return seen;
    // What a killed daemon had accepted lies in memory, until a mount has succeeded.
    disk->restart(kind_ == CrashKind::kPowerLoss && the_case.k % 3 == 0 ? CrashKind::kPowerLoss
                                                                        : CrashKind::kProcessKill);
    const auto store = open_store(*disk, options_);
    if (!store) {
      fail_with("on a healthy disk: " + store.error().what);
    } else {
      // A mount that has reported damage has gone on without what it could not read.
      check(**store, "on a healthy disk", damaged);
    }
    return seen;
  }

 private:
  void fail_with(const std::string& what) {
    ADD_FAILURE() << running << ": " << what << "\n" << history_.text();
  }

  // True if the store says that something is damaged.
  bool check(Store& store, const std::string& when, bool may_lack) {
    const StoreImage image = StoreImage::of(store);
    const auto stats = store.stats();
    const bool damaged = stats.damaged_groups + stats.damaged_values > 0 || !image.error.empty();
    if (may_lack && (damaged || when == "on a healthy disk")) return true;
    if (damaged) {
      std::string text;
      for (const auto& warning : store.recovery_warnings()) text += warning + "; ";
      fail_with(when + ": damage found: " + text + image.error);
      return true;
    }
    const size_t low = kind_ == CrashKind::kProcessKill ? history_.returned() : history_.durable();
    const std::string differs = history_.match(image, low, history_.begun());
    if (!differs.empty()) fail_with(when + ": no prefix fits:" + differs);
    return false;
  }

  const CrashKind kind_;
  FakeClock clock_;
  const StoreOptions options_ = options_with(clock_);
  History history_;
  std::unique_ptr<SimDisk> left_;
};

void sweep_recoveries(CrashKind kind) {
  const auto start = std::chrono::steady_clock::now();
  const uint64_t first = from_environment("VALFS_SEED", 1);
  const uint64_t volumes = nightly() ? 400 : with_effort(40);
  uint64_t cases = 0;
  std::vector<uint64_t> seeds{21, 53, 101};  // have found something
  for (uint64_t seed = first; seed < first + volumes; seed++) seeds.push_back(seed);
  for (const uint64_t seed : seeds) {
    SCOPED_TRACE("VALFS_SEED=" + std::to_string(seed));
    RecoveryRun run(seed, kind);
    const uint64_t count = run.go({});
    ASSERT_GT(count, 30u);
    cases += sweep(count, 200, [&](const Case& the_case) { run.go(the_case); });
    if (::testing::Test::HasFailure()) return;
  }
  say(cases, start);
}

TEST(IoError, P2_P3_EveryKthIoOfARecoveryFromPowerLoss) {
  sweep_recoveries(CrashKind::kPowerLoss);
}

TEST(IoError, P1_P3_EveryKthIoOfARecoveryFromAKill) {
  sweep_recoveries(CrashKind::kProcessKill);
}

}  // namespace
}  // namespace valfs::test
