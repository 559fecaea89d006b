#include "tests/support/crash_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

namespace valfs::test {

using storage::CrashKind;
using storage::Operation;
using storage::SimDisk;

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

uint64_t with_effort(uint64_t count) {
  return count * from_environment("VALFS_EFFORT", 100) / 100;
}

bool nightly() {
  return std::getenv("VALFS_NIGHTLY") != nullptr && with_effort(100) == 100;
}

void CrashTotals::note(const Operation& operation, const Action& action) {
  const auto in = [&](const char* prefix) { return operation.path.rfind(prefix, 0) == 0; };
  const bool cleaning = action.kind == Action::kGc || action.kind == Action::kCleanStep;
  if (in("checkpoint")) {
    in_checkpoint++;
  } else if (in("super")) {
    in_superblock++;
  } else if (in("bin")) {
    in_blobs++;
  } else if (cleaning) {
    in_cleaner++;  // copies, manifests, log files that go
  }
}

std::string CrashTotals::text(std::chrono::steady_clock::time_point since) const {
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
  std::string nested;
  uint64_t all = crashes;
  for (const uint64_t count : recoveries) {
    nested += (nested.empty() ? "" : "/") + std::to_string(count);
    all += count;
  }
  const auto text = [](uint64_t number) { return std::to_string(number); };
  return text(crashes) + " crashes (" + text(kills) + " kills; cleaner " + text(in_cleaner) +
         ", checkpoint " + text(in_checkpoint) + ", superblock " + text(in_superblock) + ", bin " +
         text(in_blobs) + ") and " + nested + " of recoveries in " +
         text(static_cast<uint64_t>(seconds * 1000)) +
         " ms: " + text(static_cast<uint64_t>(static_cast<double>(all) / seconds)) +
         " cuts a second; groups drained " + text(drained) + ", dropped " + text(dropped) +
         "; mounts with a checkpoint " + text(with_checkpoint);
}

void CrashCheck::fail_with(const std::string& what) {
  ADD_FAILURE() << trace_ << "; " << history_.returned() << " of " << history_.begun()
                << " actions had returned, " << history_.durable() << " were synced: " << what
                << "\n"
                << history_.text();
}

bool CrashCheck::cut_recoveries(SimDisk& disk, bool killed, std::mt19937_64& random) {
  for (size_t depth = 0; depth < CrashTotals::kDeepest; depth++) {
    if (random() % (depth == 0 ? 3 : 2) != 0) return true;
    disk.cut_at(1 + random() % (random() % 4 == 0 ? 60 : 16));
    auto store = open_store(disk, options_);
    if (disk.powered() && store) {
      trace_ += ", recovered once";
      return true;
    }
    if (disk.powered()) {
      fail_with("opening: " + store.error().what);
      return false;
    }
    if (store) (*store).reset();
    // What only a killed daemon's staging memory holds is safe once recovery has written it, but
    // the power may go before that.
    const CrashKind next =
        killed || random() % 4 == 0 ? CrashKind::kProcessKill : CrashKind::kPowerLoss;
    disk.restart(next);
    totals_.recoveries[depth]++;
    trace_ += next == CrashKind::kPowerLoss ? ", recovery cut" : ", recovery killed";
  }
  return true;
}

void CrashCheck::check(SimDisk& disk, CrashKind kind, uint64_t seed) {
  std::mt19937_64 random(seed);
  const bool killed = kind == CrashKind::kProcessKill;
  trace_ = std::string(killed ? "killed" : "power cut") + ", crash seed " + std::to_string(seed);
  totals_.crashes++;
  totals_.kills += killed ? 1 : 0;
  const size_t low = killed ? history_.returned() : history_.durable();
  if (depth_.cut_recoveries && !cut_recoveries(disk, killed, random)) return;
  disk.cut_at(1'000'000'000);
  auto opened = open_store(disk, options_);
  if (!opened) return fail_with("opening: " + opened.error().what);
  std::unique_ptr<Store> store = std::move(*opened);
  const auto stats = store->stats();
  totals_.dropped += stats.dropped_groups;
  totals_.drained += stats.drained_groups;
  totals_.with_checkpoint += stats.used_checkpoint ? 1 : 0;
  if (stats.damaged_groups + stats.damaged_values > 0) {
    std::string text = "damage found: ";
    for (const auto& warning : store->recovery_warnings()) text += warning + "; ";
    return fail_with(text);
  }
  StoreImage image = StoreImage::of(*store);
  const std::string differs = history_.match(image, low, history_.begun());
  if (!differs.empty()) return fail_with("no prefix fits:" + differs);
  if (const auto bad = check_index(*store); !bad.empty()) return fail_with(bad);
  if (depth_.work_on) work_on(disk, std::move(store), image, random);
}

// What was found stays found; what is synced now survives the next cut.
void CrashCheck::work_on(SimDisk& disk, std::unique_ptr<Store> store, StoreImage& image,
                         std::mt19937_64& random) {
  const Bytes bytes = pattern(random(), 1 + random() % 20000);
  auto good = put(*store, "after", bytes);
  if (good && random() % 4 == 0) good = store->gc().has_value() ? Status{} : fail(EIO, "gc");
  if (good && random() % 8 == 0) store->tick();
  if (good) good = random() % 4 == 0 ? store->close() : store->sync();
  if (!good) return fail_with("working on: " + good.error().what);
  store.reset();
  disk.restart(CrashKind::kPowerLoss);
  if (random() % 4 == 0) {  // the log alone is the whole truth
    for (const std::string& path : disk.files()) {
      if (path.rfind("checkpoint/", 0) == 0) (void)disk.erase(path);
    }
  }
  auto opened = open_store(disk, options_);
  if (!opened) return fail_with("opening again: " + opened.error().what);
  store = std::move(*opened);
  StoreImage again = StoreImage::of(*store);
  const auto after = again.paths.find("after");
  if (after == again.paths.end() || !same_bytes(after->second.bytes, bytes)) {
    return fail_with("what was synced is not there");
  }
  again.paths.erase(after);
  if (!again.error.empty()) return fail_with("second time: " + again.error);
  if (again.paths.size() != image.paths.size()) return fail_with("other paths later");
  for (const auto& [path, entry] : image.paths) {
    const auto& later = again.paths[path];
    if (later.links != entry.links || later.inode != entry.inode ||
        later.permissions != entry.permissions) {
      return fail_with(path + " has other attributes later");
    }
    if (same_bytes(later.bytes, entry.bytes)) continue;
    const auto at = std::mismatch(entry.bytes.begin(), entry.bytes.end(), later.bytes.begin(),
                                  later.bytes.end());
    return fail_with(
        path + " differs later at byte " + std::to_string(at.first - entry.bytes.begin()) + ": " +
        std::to_string(entry.bytes.size()) + " bytes, then " + std::to_string(later.bytes.size()));
  }
  if (const auto bad = check_index(*store); !bad.empty()) return fail_with(bad);
}

}  // namespace valfs::test
