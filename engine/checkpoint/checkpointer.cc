#include "engine/checkpoint/checkpointer.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "engine/base/planted.h"

namespace valfs::checkpoint {

Status Checkpointer::flush_blobs() {
  for (const log::ObjectId inode : blobs_.unfinished()) {
    const std::unique_lock lock(core_.value_lock(inode));
    const auto flushed = blobs_.flush(inode);
    if (!flushed && flushed.error().code != ENOENT) return flushed;
  }
  return {};
}

Moment Checkpointer::take_moment() {
  Moment moment;
  const std::unique_lock lock(core_.state);
  moment.covers = core_.writer->seal();
  moment.next_record = core_.writer->next_record();
  moment.next_object = core_.writer->next_object();
  moment.newest_freed = core_.newest_freed;
  for (const log::LogFileRef& file : core_.files.all()) {
    const log::LogFile now = core_.files.state_of(*file);
    checkpoint::FileEntry entry;
    entry.id = now.id;
    entry.epoch = now.epoch;
    entry.stream = now.stream;
    entry.begin = now.begin;
    entry.end = core_.writer->sealed_end(*file);
    entry.highest_object = now.highest_object;
    entry.first_group = now.first_group;
    entry.last_group = now.last_group;
    moment.files.push_back(entry);
  }
  return moment;
}

Status Checkpointer::run() {
  const std::lock_guard one_at_a_time(mutex_);
  const uint64_t relocations = core_.writer->relocations();
  const Moment moment = take_moment();
  const uint64_t sent = core_.writer->bytes_sent();
  // The next mount does not see which bytes in bin/ the covered groups wrote: they have to be
  // durable before the checkpoint counts.
  if (!planted(Bug::kCheckpointBeforeBlobs)) VALFS_TRY(flush_blobs());
  if (!planted(Bug::kCheckpointBeforeLog)) VALFS_TRY(core_.writer->sync());

  uint64_t generation;
  {
    const std::lock_guard lock(core_.superblock_mutex);
    generation = core_.superblock.checkpoint + 1;
  }
  const WithIndex with_index = [this](const auto& use) {
    const std::shared_lock lock(core_.state);
    use(core_.index);
  };
  VALFS_ASSIGN(const uint64_t bytes, write_checkpoint(core_.storage, core_.superblock.volume,
                                                      generation, moment, with_index));
  // The walk has seen changes that were made meanwhile. They have to be durable before the
  // checkpoint counts: it must never know more than the log.
  if (!planted(Bug::kCheckpointBeforeLog)) VALFS_TRY(core_.writer->sync());
  if (core_.writer->relocations() != relocations) {
    (void)core_.storage.remove(checkpoint_path(generation));  // the next one takes its place
    return fail(EAGAIN, "records moved in the log while a checkpoint was written");
  }
  VALFS_TRY(core_.files.trim_sealed());
  {
    const std::lock_guard lock(core_.superblock_mutex);
    log::Superblock next = core_.superblock;
    next.checkpoint = generation;
    next.durable_group = std::max(next.durable_group, moment.covers);
    next.next_record = std::max(next.next_record, core_.writer->next_record());
    next.next_object = std::max(next.next_object, core_.writer->next_object());
    next.next_file = core_.files.next_file();
    next.cut_count = 0;  // what they cut off is gone now
    const auto written = log::write_superblock(core_.storage, next);
    core_.superblock.generation = next.generation;  // no other contents may bear it
    if (!written) return written;
    core_.superblock = next;
  }
  covers_ = moment.covers;
  {
    const std::lock_guard lock(ends_mutex_);
    ends_.clear();
    for (const FileEntry& entry : moment.files) ends_[entry.id] = entry.end;
  }
  written_at_last_ = sent;
  replayed_ = 0;
  bytes_of_last_ = bytes;
  VALFS_TRY(remove_old_checkpoints(core_.storage, generation));
  core_.checkpoint_bytes = checkpoint_bytes(core_.storage);
  spdlog::debug("checkpoint {}: covers group {}, {} bytes", generation, moment.covers, bytes);
  return {};
}

void Checkpointer::start(log::GroupSequence covers, uint64_t bytes_behind) {
  covers_ = covers;
  replayed_ = bytes_behind;
  const std::lock_guard lock(ends_mutex_);
  for (const log::LogFileRef& file : core_.files.all()) {
    const log::LogFile now = core_.files.state_of(*file);
    if (now.last_group <= covers) ends_[now.id] = now.end;
  }
}

uint64_t Checkpointer::covered_end(log::FileId file) const {
  const std::lock_guard lock(ends_mutex_);
  const auto end = ends_.find(file);
  return end == ends_.end() ? 0 : end->second;
}

uint64_t Checkpointer::log_bytes_behind() const {
  return replayed_.load() + core_.writer->bytes_sent() - written_at_last_.load();
}

}  // namespace valfs::checkpoint
