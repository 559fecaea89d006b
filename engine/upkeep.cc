#include "engine/upkeep.h"

#include <pthread.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/base/planted.h"

namespace valfs {
namespace {

using std::chrono::milliseconds;

constexpr uint64_t kSmallestLogFile = 16 * kMiB;
constexpr milliseconds kUpkeepEvery{100};
constexpr milliseconds kPoll{2};
constexpr std::chrono::seconds kAttestAfter{1};
constexpr milliseconds kCleanEvery{20};
constexpr milliseconds kCleanAfterFailure{100};
// On a full disk a file is cleaned for the sake of writes if it gives this share of a log file.
constexpr uint64_t kLeastGain = 8;  // 1/8

}  // namespace

void Upkeep::start() {
  core_.on_append = [this] {
    const std::lock_guard lock(mutex_);
    core_.committer_asleep = false;
    wake_committer_.notify_one();
  };
  committer_ = std::thread([this] { run_committer(); });
  upkeep_ = std::thread([this] { run_upkeep(); });
  cleaning_thread_ = std::thread([this] { run_cleaner(); });
}

void Upkeep::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  pacing_.stop();
  wake_committer_.notify_all();
  wake_upkeep_.notify_all();
  wake_cleaner_.notify_all();
  if (cleaning_thread_.joinable()) cleaning_thread_.join();
  if (committer_.joinable()) committer_.join();
  if (upkeep_.joinable()) upkeep_.join();
}

// Promises P4 and P5: what is older than `commit` is durable, and until shortly before that a
// moment is awaited at which no value is between its truncation and its next write.
void Upkeep::commit_if_due() {
  const auto since = core_.writer->undurable_since();
  if (!since || planted(Bug::kNoTimedCommit)) return;
  const auto commit = core_.options.commit;
  // Leave time for a gap to close, and for the write itself.
  const auto early = commit - std::min(commit / 2, milliseconds(50));
  const auto late = commit - std::min(commit / 4, milliseconds(15));
  const auto age = core_.now() - *since;
  if (age < early) return;
  if (age >= late || planted(Bug::kCommitInTheGap)) return core_.writer->push();
  core_.truncations.run_outside(core_.now(), [this] { core_.writer->push(); });
}

void Upkeep::run_committer() {
  pthread_setname_np(pthread_self(), "valfs-commit");
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const auto since = core_.writer->undurable_since();
    if (!since) {
      core_.committer_asleep = true;
      // Whoever appends from here on wakes us; what was appended just before is seen below.
      if (core_.writer->undurable_since()) continue;
      wake_committer_.wait(lock, [this] { return stopping_ || !core_.committer_asleep.load(); });
      continue;
    }
    lock.unlock();
    commit_if_due();
    lock.lock();
    const auto commit = core_.options.commit;
    const auto due = *since + commit - std::min(commit / 2, milliseconds(50));
    const auto next = std::max(due, core_.now() + kPoll);
    wake_committer_.wait_until(lock, next, [this] { return stopping_; });
  }
}

void Upkeep::run_upkeep() {
  pthread_setname_np(pthread_self(), "valfs-upkeep");
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    tick();
    lock.lock();
    wake_upkeep_.wait_for(lock, kUpkeepEvery, [this] { return stopping_; });
  }
}

void Upkeep::report(const char* what, const Status& status) {
  if (status) return;
  const std::string text = std::string(what) + ": " + status.error().what;
  const std::lock_guard lock(progress_mutex_);
  if (text != last_report_) spdlog::warn("{}", text);
  last_report_ = text;
}

void Upkeep::tick() {
  if (core_.writer->failure()) return;
  if (!core_.options.background) commit_if_due();
  core_.run_deferred();
  adapt_file_size();
  prepare_spares();
  report("flushing large values", flush_blobs(false));
  const auto group = core_.writer->appended();
  if (group != seen_group_) {
    seen_group_ = group;
    quiet_since_ = core_.now();
  }
  if (core_.now() - quiet_since_ >= kAttestAfter) {
    sum_quiet_blobs();
    {
      const std::unique_lock lock(core_.state);
      core_.writer->attest();
    }
    if (core_.writer->attested()) seen_group_ = core_.writer->appended();
  }
  checkpoint_if_due();
  if (!core_.options.background) clean_if_due();
}

// Two spares are the reserve (log writer); a third is for whoever writes, once the current file is
// half full. Where the disk is full, the reserve is made up by cleaning.
void Upkeep::prepare_spares() {
  const bool soon = core_.writer->room_left() < core_.files.file_size() / 2;
  const auto prepared = core_.files.prepare(soon ? 3 : 2);
  if (prepared) return report("replacing log files", core_.files.replace_reserved_spares());
  if (prepared.error().code != ENOSPC) return report("preparing log files", prepared);
  if (core_.files.spares() >= 2) return;
  const log::LogFileRef file = choose_fitting();
  if (!file) return;
  const auto cleaned = clean_whole(file);
  if (!cleaned) report("cleaning a full disk", tl::unexpected(cleaned.error()));
}

// The file with most dead bytes of which the rest still has room.
log::LogFileRef Upkeep::choose_fitting() const {
  const uint64_t room = core_.writer->room_left() + core_.files.usage().spare;
  log::LogFileRef best;
  uint64_t most = 0;
  for (const log::LogFileRef& file : cleaner_.worth_cleaning()) {
    const uint64_t dead = cleaner_.dead_in(*file);
    const log::LogFile now = core_.files.state_of(*file);
    if (!now.sealed) continue;
    const uint64_t used = now.end - now.begin;
    const uint64_t live = used > dead ? used - dead : 0;
    if (live + core_.options.slot_size > room || dead <= most) continue;
    most = dead;
    best = file;
  }
  return best;
}

void Upkeep::adapt_file_size() {
  const StoreOptions& options = core_.options;
  const uint64_t smallest = core_.options.slot_size + 2 * log::kBlock;
  if (options.log_file_size > 0) {
    return core_.files.set_file_size(std::max(options.log_file_size, smallest), smallest);
  }
  uint64_t live;
  {
    const std::shared_lock lock(core_.state);
    live = core_.index.live().total();
  }
  uint64_t size = std::clamp(live / 16, kSmallestLogFile, options.max_log_file);
  uint64_t room = options.capacity;
  if (const auto space = core_.storage.space()) {
    room = room == 0 ? space->total : std::min(room, space->total);
  }
  // On a small disk the spares must not take it all.
  if (room > 0) size = std::min(size, room / 24);
  core_.files.set_file_size(log::round_up(std::max(size, smallest), kMiB), smallest);
}

Status Upkeep::flush_blobs(bool all) {
  const auto since = blobs_.undurable_since();
  if (!since || (!all && core_.now() - *since < core_.options.blob_flush)) return {};
  Status result;
  for (const log::ObjectId inode : blobs_.unfinished()) {
    const std::unique_lock lock(core_.value_lock(inode));
    const auto flushed = blobs_.flush(inode);
    if (!flushed && flushed.error().code != ENOENT && result) result = flushed;
  }
  return result;
}

void Upkeep::sum_quiet_blobs() {
  for (const log::ObjectId inode : blobs_.unfinished()) {
    const std::unique_lock lock(core_.value_lock(inode));
    const auto summed = blobs_.sum_anew(inode);
    if (!summed && summed.error().code != ENOENT) report("summing large values", summed);
  }
}

void Upkeep::checkpoint_if_due() {
  const uint64_t behind = checkpointer_.log_bytes_behind();
  const bool idle = behind > 0 && core_.now() - quiet_since_ >= core_.options.checkpoint_idle &&
                    core_.writer->appended() > checkpointer_.covers();
  if (behind < core_.options.checkpoint_after && !idle) return;
  report("checkpoint", checkpointer_.run());
}

// Without threads the writer itself does what the cleaner would have done meanwhile.
void Upkeep::pace(uint64_t bytes) {
  if (pacing_.try_admit(bytes)) return;
  if (core_.options.background) {
    wake_cleaner_.notify_one();
    return pacing_.admit(bytes);
  }
  // Where nothing can be gained, not every change has to find that out anew.
  constexpr int kPause = 64;
  if (pause_ > 0) {
    pause_--;
    return;
  }
  const auto cleaned = clean_some();
  if (!cleaned || !*cleaned) pause_ = kPause;
}

void Upkeep::run_cleaner() {
  pthread_setname_np(pthread_self(), "valfs-clean");
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!pacing_.wanted() || core_.writer->failure()) {
      pacing_.release();
      wake_cleaner_.wait_for(lock, kCleanEvery);
      continue;
    }
    lock.unlock();
    const auto start = std::chrono::steady_clock::now();
    const auto cleaned = clean_some();
    const auto took = std::chrono::duration_cast<std::chrono::microseconds>(
        std::chrono::steady_clock::now() - start);
    if (!cleaned) report("cleaning", tl::unexpected(cleaned.error()));
    lock.lock();
    const bool gave = cleaned && *cleaned;
    if (!gave) pacing_.release();
    if (gave) {
      lock.unlock();
      pacing_.rest(took);
      lock.lock();
    } else {
      wake_cleaner_.wait_for(lock, cleaned ? kCleanEvery : kCleanAfterFailure,
                             [this] { return stopping_; });
    }
  }
}

void Upkeep::clean_if_due() {
  constexpr int kMost = 64;  // slices; what is left has another time
  for (int slices = 0; slices < kMost && pacing_.wanted(); slices++) {
    const auto cleaned = clean_some();
    if (!cleaned) report("cleaning", tl::unexpected(cleaned.error()));
    if (!cleaned || !*cleaned) return;
  }
}

// What was written since the last checkpoint is out of the cleaner's reach, so there has to be a
// new one now and then; but not so often that checkpoints are most of what is written.
Status Upkeep::checkpoint_for_cleaning() {
  // Packed as it is, a checkpoint is more work than its length says.
  constexpr uint64_t kWork = 6;
  const uint64_t enough =
      std::max({core_.live_bytes() / 10, kWork * checkpointer_.last_bytes(), pacing_.slice()});
  if (checkpointer_.log_bytes_behind() < enough) return {};
  return checkpointer_.run();
}

// One slice of what is best cleaned. False if nothing was gained.
Result<bool> Upkeep::clean_some() {
  VALFS_TRY(checkpoint_for_cleaning());
  log::LogFileRef file = cleaner_.choose();
  if (!file && checkpointer_.log_bytes_behind() > 0) {
    VALFS_TRY(checkpointer_.run());
    file = cleaner_.choose();
  }
  if (!file) return false;
  VALFS_ASSIGN(const auto outcome, clean(file, pacing_.slice(), true));
  if (outcome.freed > outcome.copied) pacing_.gave(outcome.freed - outcome.copied);
  return outcome.removed || outcome.freed > 0;
}

Result<cleaner::Outcome> Upkeep::clean(const log::LogFileRef& file, uint64_t bytes, bool covered) {
  const std::lock_guard one_at_a_time(cleaning_);
  if (core_.files.find(file->id) != file) return cleaner::Outcome{.removed = true};
  return cleaner_.clean_slice(file, bytes, covered);
}

// Cleans all that is left of a file, in pieces that the rest of the volume has room for.
Result<cleaner::Outcome> Upkeep::clean_whole(const log::LogFileRef& file) {
  constexpr uint64_t kPiece = 64 * kMiB;
  cleaner::Outcome sum;
  for (;;) {
    VALFS_ASSIGN(const auto outcome, clean(file, kPiece, false));
    sum.copied += outcome.copied;
    sum.freed += outcome.freed;
    sum.removed = outcome.removed;
    sum.stuck = outcome.stuck;
    if (outcome.removed || outcome.stuck || outcome.freed == 0) return sum;
  }
}

Result<bool> Upkeep::clean_step() {
  if (checkpointer_.log_bytes_behind() > 0) VALFS_TRY(checkpointer_.run());
  const log::LogFileRef file = cleaner_.choose();
  if (!file) return false;
  VALFS_ASSIGN(const auto outcome, clean_whole(file));
  spdlog::debug("{} cleaned: {} bytes copied, {} freed", log::log_file_path(file->id),
                outcome.copied, outcome.freed);
  return outcome.freed > outcome.copied;
}

// On a full disk. A checkpoint that covers what the file held would keep the next mount short, but
// the disk may be too full for it: without one the mount reads the whole log.
Result<bool> Upkeep::clean_for_room() {
  const uint64_t wanted = core_.files.file_size();
  uint64_t gained = 0;
  while (gained < wanted) {
    const log::LogFileRef file = choose_fitting();
    if (!file) break;
    VALFS_ASSIGN(const auto outcome, clean_whole(file));
    if (outcome.freed <= outcome.copied) break;
    gained += outcome.freed - outcome.copied;
  }
  return gained > 0;
}

Result<bool> Upkeep::make_room(log::LogWriter::Purpose purpose) {
  if (purpose == log::LogWriter::Purpose::kOrdinary) {
    const log::LogFileRef file = choose_fitting();
    if (!file) return false;
    const uint64_t size = core_.files.file_size();
    const bool gives_little = cleaner_.dead_in(*file) * kLeastGain < size;
    const bool uses_reserve = core_.available_bytes() + core_.files.state_of(*file).size < size;
    if (gives_little || uses_reserve) return false;
  }
  return clean_for_room();
}

GcProgress Upkeep::progress() const {
  const std::lock_guard lock(progress_mutex_);
  return progress_;
}

// Large values that have become small go back to the log.
Status Upkeep::shrink_blobs() {
  std::vector<log::ObjectId> small;
  {
    const std::shared_lock lock(core_.state);
    core_.index.for_each_inode([&](const index::Inode& inode) {
      const auto& attributes = inode.attributes;
      if (attributes.blob != 0 && attributes.size <= core_.options.blob_threshold) {
        small.push_back(inode.id);
      }
    });
  }
  for (const log::ObjectId inode : small) {
    const std::unique_lock lock(core_.value_lock(inode));
    const auto moved = blobs_.move_to_log(inode, {});
    if (!moved && moved.error().code != ENOENT && moved.error().code != EIO) return moved;
  }
  return {};
}

Status Upkeep::clean_all(std::vector<log::LogFileRef> files) {
  for (log::LogFileRef& file : files) {
    VALFS_ASSIGN(const auto outcome, clean_whole(file));
    file.reset();  // the disk has its bytes back only when nobody holds the file open
    const std::lock_guard lock(progress_mutex_);
    progress_.files_done++;
    progress_.bytes_copied += outcome.copied;
    progress_.bytes_reclaimed +=
        outcome.freed > outcome.copied ? outcome.freed - outcome.copied : 0;
    if (outcome.removed) progress_.files_freed++;
  }
  return {};
}

Status Upkeep::clean_worthy() {
  auto files = cleaner_.worth_cleaning();
  // Where there is no room to spare, what gives most comes first.
  if (!core_.files.prepare(2)) {
    std::sort(files.begin(), files.end(), [this](const auto& a, const auto& b) {
      return cleaner_.dead_in(*a) > cleaner_.dead_in(*b);
    });
  }
  {
    const std::lock_guard lock(progress_mutex_);
    progress_.files_total = progress_.files_done + files.size();
  }
  return clean_all(std::move(files));
}

Status Upkeep::collect_all() {
  VALFS_TRY(shrink_blobs());
  // A checkpoint first: what it covers may be freed without making the next mount read everything.
  report("checkpoint before cleaning", checkpointer_.run());
  VALFS_TRY(clean_worthy());
  // Now that there is room, the file that was being written to as well.
  {
    const std::unique_lock lock(core_.state);
    core_.writer->rotate();
  }
  report("checkpoint before cleaning", checkpointer_.run());
  VALFS_TRY(clean_worthy());
  core_.run_deferred();
  report("checkpoint after cleaning", checkpointer_.run());
  return {};
}

Result<GcProgress> Upkeep::collect() {
  const std::lock_guard one_at_a_time(collecting_);
  {
    const std::lock_guard lock(progress_mutex_);
    progress_ = {};
    progress_.running = true;
  }
  const Status done = collect_all();
  const std::lock_guard lock(progress_mutex_);
  progress_.running = false;
  if (!done) return tl::unexpected(done.error());
  return progress_;
}

}  // namespace valfs
