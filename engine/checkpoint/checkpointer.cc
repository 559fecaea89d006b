#include "engine/checkpoint/checkpointer.h"

#include <spdlog/spdlog.h>

#include <algorithm>

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
  moment.retired = core_.retired.intervals();
  for (const log::LogFileRef& file : core_.files.all()) {
    const log::LogFile now = core_.files.state_of(*file);
    moment.files.push_back(
        {now.id, now.epoch, now.end, now.highest_object, now.first_group, now.last_group});
  }
  return moment;
}

Status Checkpointer::run() {
  const std::lock_guard one_at_a_time(mutex_);
  const Moment moment = take_moment();
  const uint64_t used = core_.files.usage().used;
  // The next mount does not see which bytes in bin/ the covered groups wrote: they have to be
  // durable before the checkpoint counts.
  VALFS_TRY(flush_blobs());
  VALFS_TRY(core_.writer->sync());

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
  VALFS_TRY(core_.writer->sync());
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
  used_at_last_ = used;
  VALFS_TRY(remove_old_checkpoints(core_.storage, generation));
  core_.checkpoint_bytes = checkpoint_bytes(core_.storage);
  spdlog::debug("checkpoint {}: covers group {}, {} bytes", generation, moment.covers, bytes);
  return {};
}

uint64_t Checkpointer::log_bytes_behind() const {
  const uint64_t used = core_.files.usage().used;
  const uint64_t before = used_at_last_.load();
  return used > before ? used - before : 0;
}

}  // namespace valfs::checkpoint
