#include "engine/cleaner/cleaner.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <limits>

#include "engine/recovery/file_scan.h"

namespace valfs::cleaner {
namespace {

// A file of which less than this share can be freed is not worth the copying.
constexpr uint64_t kDeadShare = 50;  // 1/50
// Bytes that cleaning a file leaves dead itself: the padding of its last groups, RETIRED.
constexpr uint64_t kCost = 4 * log::kBlock;
// Tombstones are got rid of by cleaning the files that they are kept for once they take more than
// this share of what is live.
constexpr uint64_t kPinnedShare = 8;  // 1/8

uint64_t used_in(const log::LogFile& file) {
  return file.end - log::kFirstGroupOffset;
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
  for (const log::LogFileRef& file : core_.files.sealed()) {
    {
      const std::lock_guard lock(mutex_);
      if (unfree_.count(file->id) > 0) continue;
    }
    const uint64_t dead = dead_in(*file);
    const uint64_t used = used_in(core_.files.state_of(*file));
    if (dead * kDeadShare >= used && (dead > kCost || dead == used)) {
      files.push_back(file);
    }
  }
  return files;
}

log::LogFileRef Cleaner::choose(bool greedy) const {
  log::LogFileRef best;
  double best_score = 0;
  const auto newest = static_cast<double>(core_.writer->appended());
  for (const log::LogFileRef& file : worth_cleaning()) {
    const log::LogFile now = core_.files.state_of(*file);
    const auto used = static_cast<double>(std::max<uint64_t>(used_in(now), 1));
    const double share = 1 - static_cast<double>(dead_in(*file)) / used;
    const double age = newest - static_cast<double>(now.last_group) + 1;
    const double score = greedy ? used * (1 - share) : (1 - share) * age / (1 + share);
    if (score > best_score) {
      best_score = score;
      best = file;
    }
  }
  return best || greedy ? best : worst_blocker();
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

Result<Outcome> Cleaner::clean(const log::LogFileRef& file) {
  // The last groups of the file may still be on their way to it.
  VALFS_TRY(core_.writer->sync());
  const log::LogFile now = core_.files.state_of(*file);
  others_.clear();
  for (const log::LogFileRef& other : core_.files.all()) {
    if (other->id == file->id) continue;
    others_.push_back({other->id, core_.files.state_of(*other).highest_object});
  }
  damaged_ = now.first_group == 0;
  const uint64_t copied_before = bytes_copied_;
  uint64_t offset = log::kFirstGroupOffset;
  while (offset + log::kBlock <= now.end) {
    uint64_t length = 0;
    VALFS_TRY(copy_group(file, offset, now.end, length));
    offset += length;
  }
  others_.clear();
  VALFS_TRY(core_.writer->sync());
  Outcome outcome;
  outcome.copied = bytes_copied_ - copied_before;
  if (const uint64_t left = live_in(*file); left > 0 || damaged_) {
    spdlog::warn("{} is damaged ({} bytes of current values cannot be copied) and is kept",
                 log::log_file_path(file->id), left);
    const std::lock_guard lock(mutex_);
    unfree_.insert(file->id);
    return outcome;
  }
  outcome.reclaimed = now.size;
  VALFS_TRY(retire(file));
  outcome.freed = true;
  files_freed_++;
  return outcome;
}

// RETIRED, durable; then the file goes.
Status Cleaner::retire(const log::LogFileRef& file) {
  const log::LogFile now = core_.files.state_of(*file);
  // Groups that lie in no file at all were lost; with this one gone nobody could tell where.
  log::GroupSequence before = 0;
  log::GroupSequence behind = std::numeric_limits<log::GroupSequence>::max();
  for (const log::LogFileRef& other : core_.files.all()) {
    const log::LogFile there = core_.files.state_of(*other);
    if (there.first_group == 0) continue;
    if (there.last_group < now.first_group) before = std::max(before, there.last_group);
    if (there.first_group > now.last_group) behind = std::min(behind, there.first_group);
  }
  const bool last = behind == std::numeric_limits<log::GroupSequence>::max();
  uint64_t body = sizeof(log::Retired::Interval);
  {
    const std::shared_lock lock(core_.state);
    body += core_.retired.intervals().size() * sizeof(log::Retired::Interval);
  }
  {
    VALFS_ASSIGN(auto transaction, Transaction::begin(core_, Transaction::Size::of(1, body, 0),
                                                      log::LogWriter::Purpose::kCleaner));
    core_.retired.add({before + 1, last ? now.last_group : behind - 1});
    transaction.retired(core_.retired.intervals());
    transaction.commit({});
  }
  VALFS_TRY(core_.writer->sync());
  VALFS_TRY(core_.files.remove(file->id));
  {
    const std::lock_guard lock(mutex_);
    pinned_.erase(file->id);
  }
  const std::unique_lock lock(core_.state);
  core_.index.live().forget(file->id);
  return {};
}

}  // namespace valfs::cleaner
