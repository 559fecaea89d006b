#include "engine/cleaner/cleaner.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <thread>

#include "engine/base/planted.h"

namespace valfs::cleaner {
namespace {

// A file of which less than this share can be freed is not worth the copying, when asked for.
constexpr uint64_t kDeadShare = 50;  // 1/50
// The same for the cleaner on its own account: a slice leaves padding and a manifest, and it must
// come to an end.
constexpr uint64_t kBackgroundShare = 10;  // 1/10
// Bytes that cleaning a file leaves dead itself: the padding of its last groups, the manifest.
constexpr uint64_t kCost = 4 * log::kBlock;
// Tombstones are got rid of by cleaning the files that they are kept for once they take more than
// this share of what is live.
constexpr uint64_t kPinnedShare = 8;  // 1/8

uint64_t used_in(const log::LogFile& file) {
  return file.end - file.begin;
}

}  // namespace

uint64_t Cleaner::live_in(const log::LogFile& file) const {
  const std::shared_lock lock(core_.state);
  return core_.index.live().of(file.id);
}

uint64_t Cleaner::pinned_in(const log::LogFile& file) const {
  const std::lock_guard lock(mutex_);
  const auto pinned = pinned_.find(file.id);
  if (pinned == pinned_.end()) return 0;
  uint64_t sum = 0;
  for (const auto& [blocker, bytes] : pinned->second) {
    if (core_.files.find(blocker)) sum += bytes;
  }
  return sum;
}

uint64_t Cleaner::dead_in(const log::LogFile& file) const {
  const uint64_t used = used_in(core_.files.state_of(file));
  const uint64_t kept = live_in(file) + pinned_in(file);
  return used > kept ? used - kept : 0;
}

std::vector<log::LogFileRef> Cleaner::worth_cleaning() const {
  std::vector<log::LogFileRef> files;
  for (const log::LogFileRef& file : core_.files.all()) {
    {
      const std::lock_guard lock(mutex_);
      if (unfree_.count(file->id) > 0) continue;
    }
    const log::LogFile now = core_.files.state_of(*file);
    const uint64_t dead = dead_in(*file);
    const uint64_t used = used_in(now);
    if (used == 0 && !now.sealed) continue;
    if (dead * kDeadShare >= used && (dead > kCost || dead == used)) files.push_back(file);
  }
  return files;
}

// Groups of a file may be cleaned up to here.
uint64_t Cleaner::end_for(const log::LogFile& file, bool covered) const {
  const uint64_t sealed = core_.writer->sealed_end(file);
  if (planted(Bug::kFreeBeforeCheckpoint)) return sealed;
  return covered ? std::min(sealed, checkpointer_.covered_end(file.id)) : sealed;
}

log::LogFileRef Cleaner::choose() const {
  log::LogFileRef best;
  double best_score = 0;
  const auto newest = static_cast<double>(core_.writer->appended());
  if (const log::LogFileRef file = core_.files.find(begun_)) {
    const log::LogFile now = core_.files.state_of(*file);
    const bool worth = dead_in(*file) * kBackgroundShare >= used_in(now);
    const std::lock_guard lock(mutex_);
    if (now.sealed && worth && now.begin < end_for(*file, true) && unfree_.count(begun_) == 0) {
      return file;
    }
  }
  for (const log::LogFileRef& file : worth_cleaning()) {
    const log::LogFile now = core_.files.state_of(*file);
    if (end_for(*file, true) <= now.begin && now.begin < now.end) continue;
    const uint64_t dead = dead_in(*file);
    if (dead * kBackgroundShare < used_in(now)) continue;
    const auto used = static_cast<double>(std::max<uint64_t>(used_in(now), 1));
    const double share = 1 - static_cast<double>(dead) / used;
    const double age = newest - static_cast<double>(now.last_group) + 1;
    const double score = (1 - share) * age / (1 + share);
    if (score > best_score) {
      best_score = score;
      best = file;
    }
  }
  return best ? best : worst_blocker();
}

// The file for which most tombstones are kept, if they are too many: once it is cleaned they can
// go.
log::LogFileRef Cleaner::worst_blocker() const {
  uint64_t live = 0;
  {
    const std::shared_lock lock(core_.state);
    live = core_.index.live().total();
  }
  std::map<log::FileId, uint64_t> blocked;
  uint64_t sum = 0;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [file, blockers] : pinned_) {
      for (const auto& [blocker, bytes] : blockers) {
        const auto found = core_.files.find(blocker);
        if (!found || unfree_.count(blocker) > 0) continue;
        blocked[blocker] += bytes;
        sum += bytes;
      }
    }
  }
  if (blocked.empty() || sum * kPinnedShare < live) return nullptr;
  const auto worst =
      std::max_element(blocked.begin(), blocked.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return core_.files.find(worst->first);
}

// What the cleaner commits is a timed commit to everybody else (P5).
void Cleaner::await_no_gap() const {
  constexpr std::chrono::milliseconds kPoll{1};
  const auto until = core_.now() + 2 * PendingTruncations::kGap;
  while (core_.options.background && !core_.truncations.none(core_.now()) && core_.now() < until) {
    std::this_thread::sleep_for(kPoll);
  }
}

void Cleaner::begin_source(const log::LogFileRef& file) {
  source_ = {};
  source_.file = file;
  const bool young = core_.files.state_of(*file).stream == log::Stream::kUser;
  source_.target = young ? log::Stream::kWarm : log::Stream::kCold;
  for (const log::LogFileRef& other : core_.files.all()) {
    if (other == file) continue;
    const log::LogFile there = core_.files.state_of(*other);
    if (there.first_group == 0) continue;
    source_.others.push_back({there.id, there.first_group, there.highest_object});
  }
}

Result<Outcome> Cleaner::clean_slice(const log::LogFileRef& file, uint64_t bytes, bool covered) {
  // What a failed log has not made durable must not be the only copy.
  if (const auto failure = core_.writer->failure()) return tl::unexpected(*failure);
  const uint64_t end = end_for(*file, covered);
  const log::LogFile now = core_.files.state_of(*file);
  Outcome outcome;
  if (now.sealed && now.begin == now.end) {
    VALFS_TRY(remove(file));
    outcome.removed = true;
    return outcome;
  }
  // The last groups of the slice may still be on their way to the file.
  if (now.last_group > core_.writer->durable()) VALFS_TRY(core_.writer->sync());
  begin_source(file);
  const uint64_t copied_before = bytes_copied_;
  uint64_t offset = now.begin;
  log::GroupSequence last = 0;
  while (offset + log::kBlock <= end && offset - now.begin < bytes) {
    uint64_t length = 0;
    VALFS_TRY(copy_group(offset, end, length));
    if (source_.stuck) break;
    last = std::max(last, source_.group);
    offset += length;
  }
  outcome.copied = bytes_copied_ - copied_before;
  outcome.stuck = source_.stuck;
  const bool whole = now.sealed && offset + log::kBlock > now.end;
  if (whole && live_in(*file) > 0) outcome.stuck = true;
  if (outcome.stuck) {
    spdlog::warn("{} is damaged at offset {}: the rest of it is kept", log::log_file_path(file->id),
                 offset);
    const std::lock_guard lock(mutex_);
    unfree_.insert(file->id);
  }
  if (offset > now.begin && !(whole && outcome.stuck)) {
    VALFS_TRY(give_back(offset, last, whole));
    outcome.freed = offset - now.begin;
    outcome.removed = whole;
    bytes_freed_ += outcome.freed;
  }
  begun_ = outcome.removed ? 0 : file->id;
  source_ = {};
  return outcome;
}

// The manifest, durable; then what lies before `begin` goes. `last` is the youngest group in it.
Status Cleaner::give_back(uint64_t begin, log::GroupSequence last, bool whole) {
  log::LogFile& file = *source_.file;
  const uint64_t from = core_.files.state_of(file).begin;
  const uint64_t entries = (core_.files.usage().files + 4) * sizeof(log::ManifestEntry);
  {
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(core_, Transaction::Size::of(1, 0, entries),
                                    log::LogWriter::Purpose::kCleaner, source_.target));
    core_.files.freed(file, begin, last + 1);
    if (!planted(Bug::kFreeBeforeCheckpoint)) {
      core_.newest_freed = std::max(core_.newest_freed, last);
    }
    if (!planted(Bug::kFreeWithoutManifest)) {
      transaction.manifest(core_.files.manifest(core_.newest_freed, whole ? file.id : 0));
    }
    transaction.commit({});
  }
  await_no_gap();
  if (!planted(Bug::kFreeBeforeManifest)) VALFS_TRY(core_.writer->sync());
  if (whole) return remove(source_.file);
  return file.file->punch(from, begin - from);
}

Status Cleaner::remove(const log::LogFileRef& file) {
  {
    const std::lock_guard lock(core_.superblock_mutex);
    if (!planted(Bug::kForgetFreedFiles)) core_.superblock.note_freed(file->id);
    VALFS_TRY(log::write_superblock(core_.storage, core_.superblock));
  }
  VALFS_TRY(core_.files.remove(file->id));
  files_freed_++;
  {
    const std::lock_guard lock(mutex_);
    pinned_.erase(file->id);
  }
  const std::unique_lock lock(core_.state);
  core_.index.live().forget(file->id);
  return {};
}

}  // namespace valfs::cleaner
