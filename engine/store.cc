#include "engine/store.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/base/planted.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/rooms.h"

namespace valfs {
namespace {

// The largest write that the kernel sends in one request, and what its record needs besides.
constexpr uint64_t kLargestWrite = 1 * kMiB + 4 * kKiB;

// P5: the write that follows a truncation to nothing should find room in the same group, so that
// the two are not torn apart when the slot is full.
Transaction::Size with_room_for_a_write(Transaction::Size size, uint64_t slot_size) {
  if (planted(Bug::kNoRoomForTheWrite)) return size;
  return {size.bytes + std::min(kLargestWrite, slot_size / 2), size.records + 1};
}

double age_ms(const Core& core, std::optional<std::chrono::steady_clock::time_point> since) {
  if (!since) return 0;
  return std::chrono::duration<double, std::milli>(core.now() - *since).count();
}

Result<index::Found<index::Inode>> value_of(const index::Index& index, log::ObjectId inode) {
  auto known = index.find(inode);
  if (known == nullptr) return fail(ENOENT, "no object " + std::to_string(inode));
  return known;
}

}  // namespace

Store::Store(std::unique_ptr<Rooms> rooms) : rooms_(std::move(rooms)) {}

Store::~Store() {
  rooms_->upkeep.stop();
}

void Store::read_index(const std::function<void(const index::Index&)>& use) const {
  const std::shared_lock lock(rooms_->core.state);
  use(rooms_->core.index);
}

Result<size_t> Store::read(log::ObjectId inode, uint64_t offset, std::span<std::byte> into) {
  const auto find = [inode](const index::Index& index) { return value_of(index, inode); };
  if (into.size() <= ValueReader::kOneLook) {
    VALFS_ASSIGN(const auto got, rooms_->values.read(find, offset, into));
    if (got) return *got;
  }
  // Whoever changes a value holds its lock, so that several looks give one state of it.
  const std::shared_lock value(rooms_->core.value_lock(inode));
  size_t done = 0;
  while (done < into.size()) {
    const auto rest = into.subspan(done);
    const auto piece = rest.first(std::min<size_t>(rest.size(), ValueReader::kOneLook));
    VALFS_ASSIGN(const auto got, rooms_->values.read(find, offset + done, piece));
    if (!got) return rooms_->blobs.read(inode, offset, into);
    done += *got;
    if (*got < piece.size()) break;
  }
  return done;
}

Result<std::optional<size_t>> Store::read_at_once(log::ObjectId inode, uint64_t offset,
                                                  std::span<std::byte> into) {
  if (into.size() > ValueReader::kOneLook) return std::nullopt;
  const auto find = [inode](const index::Index& index) { return value_of(index, inode); };
  auto got = rooms_->values.read(find, offset, into, log::Wait::kNot);
  if (!got && got.error().code == EAGAIN) return std::nullopt;
  return got;
}

bool Store::may_wait(Change change, log::ObjectId inode, uint64_t bytes) const {
  Core& core = rooms_->core;
  using Purpose = log::LogWriter::Purpose;
  const bool deletes = change == Change::kDelete;
  if (core.writer->is_crowded(deletes ? Purpose::kReserve : Purpose::kOrdinary)) return true;
  if (deletes) return false;
  if (change != Change::kNames) {
    const std::shared_lock lock(core.state);
    const auto known = core.index.find(inode);
    if (known != nullptr) {
      const uint64_t stored = known->extents().bytes();
      const bool moves =
          known->attributes.blob != 0 || stored + bytes > core.options.blob_threshold;
      // A write inside an extent leaves two more.
      const bool folds = known->extents().all().size() + 2 > core.options.fold_extents;
      if (moves || folds) return true;
      if (change == Change::kSize) bytes = stored;
    }
  }
  // Names are paid for by what their transaction may take at most.
  if (change == Change::kNames) bytes = Transaction::Size::of(9, 2 * bytes, bytes).bytes;
  // Whoever overwrites pays when the value is cut to nothing.
  if (change == Change::kContent && core.truncations.is_open(inode)) return false;
  return rooms_->upkeep.makes_writers_wait(bytes);
}

bool Store::is_large(log::ObjectId inode) const {
  const std::shared_lock lock(rooms_->core.state);
  const auto known = rooms_->core.index.find(inode);
  return known != nullptr && known->attributes.blob != 0;
}

Result<std::optional<size_t>> Store::read_in_log(const Find& find, uint64_t offset,
                                                 std::span<std::byte> into) {
  if (into.size() > ValueReader::kOneLook) return std::nullopt;
  return rooms_->values.read(find, offset, into);
}

log::ObjectId Store::next_object() const {
  return rooms_->core.writer->next_object();
}

const StoreOptions& Store::options() const {
  return rooms_->core.options;
}

uint64_t Store::stored_bytes(log::ObjectId inode) {
  log::ObjectId blob = 0;
  uint64_t bytes = 0;
  {
    const std::shared_lock lock(rooms_->core.state);
    const auto known = rooms_->core.index.find(inode);
    if (known == nullptr) return 0;
    blob = known->attributes.blob;
    for (const index::Extent& extent : known->extents().all()) {
      bytes += extent.own_bytes() + extent.shared_bytes();
    }
  }
  return blob == 0 ? bytes : rooms_->blobs.allocated(blob);
}

Result<Transaction> Store::begin(const Transaction::Size& size, log::LogWriter::Purpose purpose) {
  if (purpose == log::LogWriter::Purpose::kOrdinary) rooms_->core.pace(size.bytes);
  return Transaction::begin(rooms_->core, size, purpose);
}

Status Store::write(log::ObjectId inode, uint64_t offset, std::span<const std::byte> bytes,
                    Time now) {
  if (bytes.empty()) return {};
  Core& core = rooms_->core;
  // Whoever overwrites has paid when the value was truncated: no waiting in that gap (P5).
  if (!core.truncations.is_open(inode)) core.pace(bytes.size());
  const std::unique_lock value(core.value_lock(inode));
  bool blob = false;
  bool too_large = false;
  {
    const std::shared_lock lock(core.state);
    const auto known = core.index.find(inode);
    if (known == nullptr) return fail(ENOENT, "no object " + std::to_string(inode));
    blob = known->attributes.blob != 0;
    uint64_t replaced = 0;
    const uint64_t end = offset + bytes.size();
    for (const index::Extent& extent : known->extents().overlapping(offset, end)) {
      replaced += std::min(extent.end(), end) - std::max(extent.offset, offset);
    }
    too_large = known->extents().bytes() - replaced + bytes.size() > core.options.blob_threshold;
  }
  if (!blob && too_large) {
    VALFS_TRY(rooms_->blobs.move_to_blob(inode, now));
    blob = true;
  }
  if (blob) {
    const auto written = rooms_->blobs.write(inode, offset, bytes, now);
    core.truncations.close(inode);
    return written;
  }
  {
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(
                     core, Transaction::Size::of(1, Transaction::kSalvageName, bytes.size())));
    transaction.write(inode, offset, bytes);
    transaction.commit(now);
    // Who reads it first finds neither it in the page cache, nor itself willing to wait for the
    // disk.
    if (offset == 0) rooms_->values.remember_written(inode, transaction.last_sequence(), bytes);
  }
  core.truncations.close(inode);
  return fold_if_scattered(inode);
}

// A value of many overlaying extents becomes one again, once they hold as much as the value: so the
// bytes written stay within a constant of the bytes asked for.
Status Store::fold_if_scattered(log::ObjectId inode) {
  Core& core = rooms_->core;
  uint64_t size = 0;
  {
    const std::shared_lock lock(core.state);
    const auto known = core.index.find(inode);
    if (known == nullptr || known->extents().all().size() <= core.options.fold_extents) return {};
    size = known->attributes.size;
    const bool sparse = known->extents().bytes() < size / 2;
    // Holes do not count for what the log takes, and folding fills them.
    const uint64_t most = std::min<uint64_t>(log::kMaxPayload, core.options.blob_threshold);
    if (sparse || size > most || known->overlay_bytes() < size) return {};
  }
  std::vector<std::byte> bytes(size);
  const auto read = rooms_->values.read_uncached(inode, 0, bytes);
  // A damaged piece stays where it is; the write itself has succeeded.
  if (!read && !planted(Bug::kFoldDamage)) return {};
  auto transaction =
      Transaction::begin(core, Transaction::Size::of(2, Transaction::kSalvageName, size));
  if (!transaction) return {};
  const auto known = transaction->index().find(inode);
  if (known == nullptr || known->attributes.size != size) return {};
  const index::Attributes attributes = known->attributes;
  transaction->write(inode, 0, bytes);
  transaction->put(inode, attributes);  // the times stay what they were
  transaction->commit(attributes.changed());
  return {};
}

// Stored bytes of a value that lie in the log.
uint64_t Store::bytes_in_log(log::ObjectId inode) const {
  const std::shared_lock lock(rooms_->core.state);
  const auto known = rooms_->core.index.find(inode);
  return known == nullptr ? 0 : known->extents().bytes();
}

Status Store::truncate(log::ObjectId inode, uint64_t size, Time now) {
  Core& core = rooms_->core;
  if (size == 0) core.pace(bytes_in_log(inode));
  const std::unique_lock value(core.value_lock(inode));
  bool blob = false;
  bool shrinks = false;
  bool empties = false;
  {
    const std::shared_lock lock(core.state);
    const auto known = core.index.find(inode);
    if (known == nullptr) return fail(ENOENT, "no object " + std::to_string(inode));
    blob = known->attributes.blob != 0;
    shrinks = size < known->attributes.size;
    empties = size == 0 && shrinks;
  }
  if (empties) core.truncations.open(inode, core.now());
  if (blob) return rooms_->blobs.truncate(inode, size, now);
  const auto purpose =
      shrinks ? log::LogWriter::Purpose::kReserve : log::LogWriter::Purpose::kOrdinary;
  const auto needed = Transaction::Size::of(1, 0, 0);
  for (bool roomy = empties;; roomy = false) {
    auto transaction = Transaction::begin(
        core, roomy ? with_room_for_a_write(needed, core.options.slot_size) : needed, purpose);
    if (!transaction && transaction.error().code == ENOSPC && roomy) continue;
    if (!transaction) return tl::unexpected(transaction.error());
    transaction->truncate(inode, size);
    transaction->commit(now);
    return {};
  }
}

Status Store::punch(log::ObjectId inode, uint64_t offset, uint64_t length, Time now) {
  Core& core = rooms_->core;
  const std::unique_lock value(core.value_lock(inode));
  bool blob = false;
  {
    const std::shared_lock lock(core.state);
    const auto known = core.index.find(inode);
    if (known == nullptr) return fail(ENOENT, "no object " + std::to_string(inode));
    blob = known->attributes.blob != 0;
  }
  if (blob) return rooms_->blobs.punch(inode, offset, length, now);
  VALFS_ASSIGN(auto transaction,
               begin(Transaction::Size::of(1, 0, 0), log::LogWriter::Purpose::kReserve));
  transaction.zero(inode, offset, length);
  transaction.commit(now);
  return {};
}

void Store::hold(const index::Inode& inode) {
  inode.hold();
}

void Store::release(std::span<const Held> holds) {
  constexpr size_t kAtOnce = 16;  // under one lock, and in one transaction
  for (; !holds.empty(); holds = holds.subspan(std::min(kAtOnce, holds.size()))) {
    std::array<log::ObjectId, kAtOnce> unused;
    size_t count = 0;
    {
      const std::shared_lock lock(rooms_->core.state);
      for (const Held& held : holds.first(std::min(kAtOnce, holds.size()))) {
        const auto known = rooms_->core.index.find(held.inode);
        if (known == nullptr) continue;
        const uint64_t before = known->release(held.count);
        if (before == held.count && known->attributes.links == 0) unused[count++] = held.inode;
      }
    }
    if (count > 0) remove_unheld(std::span(unused).first(count));
  }
}

// Inodes without names that nobody holds, unless somebody has meanwhile taken them up.
void Store::remove_unheld(std::span<const log::ObjectId> inodes) {
  auto transaction =
      Transaction::begin(rooms_->core, Transaction::Size::of(2 * inodes.size(), 0, 0),
                         log::LogWriter::Purpose::kReserve);
  // On failure the next mount removes them.
  if (!transaction) return;
  std::vector<std::pair<log::ObjectId, log::ObjectId>> blobs;
  for (const log::ObjectId inode : inodes) {
    const auto known = transaction->index().find(inode);
    if (known == nullptr || known->attributes.links > 0 || known->holds() > 0) continue;
    transaction->remove(inode);
    const log::ObjectId blob = known->attributes.blob;
    if (blob == 0) continue;
    transaction->remove(blob);
    blobs.emplace_back(blob, inode);
  }
  if (transaction->empty()) return;
  transaction->commit({});
  for (const auto& [blob, inode] : blobs) rooms_->blobs.remove_later(blob, inode);
}

void Store::blob_removed(log::ObjectId blob, log::ObjectId inode) {
  rooms_->blobs.remove_later(blob, inode);
}

void Store::sync(log::ObjectId inode, std::function<void(const Status&)> done) {
  Core& core = rooms_->core;
  if (!planted(Bug::kSyncForgetsLargeValues)) {
    const Status flushed = inode == 0 ? rooms_->upkeep.flush_blobs(true) : flush(inode);
    if (!flushed) return done(flushed);
  }
  core.writer->sync(std::move(done));
}

void Store::finish_syncs() {
  // An error is close()'s to tell.
  (void)rooms_->core.writer->sync();
  rooms_->core.writer->wait_for_calls();
}

Status Store::flush(log::ObjectId inode) {
  // Whoever brings a value to bin/ has made it durable there before. No waiting for others who have
  // the same lock.
  if (!is_large(inode)) return {};
  const std::unique_lock value(rooms_->core.value_lock(inode));
  auto flushed = rooms_->blobs.flush(inode);
  if (!flushed && flushed.error().code == ENOENT) return {};
  return flushed;
}

Status Store::failure() const {
  if (const auto failed = rooms_->core.writer->failure()) return tl::unexpected(*failed);
  return {};
}

Status Store::sync(log::ObjectId inode) {
  VALFS_TRY(inode == 0 ? rooms_->upkeep.flush_blobs(true) : flush(inode));
  return rooms_->core.writer->sync();
}

Result<GcProgress> Store::gc() {
  return rooms_->upkeep.collect();
}
GcProgress Store::gc_progress() const {
  return rooms_->upkeep.progress();
}
Status Store::checkpoint() {
  return rooms_->checkpointer.run();
}
void Store::drop_caches() {
  rooms_->core.cache.clear();
}
void Store::tick() {
  rooms_->upkeep.tick();
}
Result<bool> Store::clean_step() {
  return rooms_->upkeep.clean_step();
}

std::vector<std::string> Store::recovery_warnings() const {
  return rooms_->recovered.warnings;
}

StoreStats Store::stats() const {
  const Core& core = rooms_->core;
  StoreStats stats;
  {
    const std::shared_lock lock(core.state);
    stats.inodes = core.index.inode_count();
    stats.names = core.index.name_count();
    stats.live_bytes = core.index.live().total();
  }
  {
    const std::lock_guard lock(core.superblock_mutex);
    stats.volume = core.superblock.volume.text();
    stats.epoch = core.superblock.epoch;
  }
  stats.io = core.storage.description();
  const auto usage = core.files.usage();
  stats.log_files = usage.files;
  stats.dead_bytes = usage.used > stats.live_bytes ? usage.used - stats.live_bytes : 0;
  stats.spare_bytes = usage.spare;
  stats.log_bytes = usage.bytes;
  stats.blob_bytes = core.blob_bytes;
  stats.checkpoint_bytes = core.checkpoint_bytes;
  stats.available_bytes = core.available_bytes();
  stats.capacity_bytes = core.used_bytes() + stats.available_bytes;
  stats.groups_sent = core.writer->groups_sent();
  stats.appended_group = core.writer->appended();
  stats.durable_group = core.writer->durable();
  stats.undurable_ms = age_ms(core, core.writer->undurable_since());
  stats.undurable_blob_ms = age_ms(core, rooms_->blobs.undurable_since());
  stats.checkpoint_covers = rooms_->checkpointer.covers();
  stats.cache = core.cache.stats();
  stats.cleaned_files = rooms_->cleaner.files_freed();
  stats.cleaned_bytes = rooms_->cleaner.bytes_freed();
  stats.copied_bytes = rooms_->cleaner.bytes_copied();
  stats.compressed_records = rooms_->cleaner.compressed();
  stats.compressed_bytes = rooms_->cleaner.compressed_bytes();
  stats.compressed_raw_bytes = rooms_->cleaner.compressed_raw_bytes();
  stats.debt_bytes = rooms_->upkeep.debt();
  stats.relocations = core.writer->relocations();
  if (const auto failure = core.writer->failure()) stats.failure = failure->what;
  const recovery::Recovered& recovered = rooms_->recovered;
  stats.used_checkpoint = recovered.used_checkpoint;
  stats.used_older_checkpoint = recovered.used_older_checkpoint;
  stats.footers_used = recovered.footers_used;
  stats.replayed_groups = recovered.groups;
  stats.replayed_records = recovered.records;
  stats.drained_groups = recovered.drained;
  stats.dropped_groups = recovered.dropped_groups;
  stats.damaged_groups = recovered.damaged_groups;
  stats.damaged_values = recovered.damaged_values;
  return stats;
}

}  // namespace valfs
