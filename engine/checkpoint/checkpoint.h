// Checkpoints: the index written down, so that a mount need not read the whole log.
//
//   DATA/checkpoint/<generation, 16 hex digits>
//   header · pages of inodes, each with its extents and names (entries.h) · page of log files · end
//
// A checkpoint is fuzzy: it is written while the index changes. It holds at least every record up
// to group `covers`; of later records it may hold some. Replaying the groups behind `covers` makes
// it exact, because applying a record twice is harmless. Every page has a CRC; a checkpoint counts
// only if its end page is there and all pages are whole. It is named in the superblock after it is
// durable. The two newest are kept.
#pragma once

#include <functional>
#include <vector>

#include "engine/index/index.h"
#include "engine/log/log_files.h"

namespace valfs::checkpoint {

// What a checkpoint knows of a log file.
struct FileEntry {
  log::FileId id = 0;
  log::Epoch epoch = 0;
  log::Stream stream = log::Stream::kUser;
  uint16_t reserved = 0;
  uint32_t reserved2 = 0;
  uint64_t begin = 0;  // the cleaner has freed what lies before
  uint64_t end = 0;    // groups up to here are covered
  log::ObjectId highest_object = 0;
  log::GroupSequence first_group = 0;
  log::GroupSequence last_group = 0;
};
static_assert(sizeof(FileEntry) == 56 && std::is_trivially_copyable_v<FileEntry>);

// What was true at the moment from which on the index is walked.
struct Moment {
  log::GroupSequence covers = 0;
  log::RecordSequence next_record = 0;
  log::ObjectId next_object = 0;
  std::vector<FileEntry> files;
  log::GroupSequence newest_freed = 0;
};

// Calls its argument with the index locked for reading. The walk asks for it many times, so that
// writers are never held up for long.
using WithIndex = std::function<void(const std::function<void(const index::Index&)>&)>;

std::string checkpoint_path(uint64_t generation);

// Writes a checkpoint, durably. Returns its size in bytes. On error nothing is left behind.
Result<uint64_t> write_checkpoint(storage::Storage& storage, const log::VolumeId& volume,
                                  uint64_t generation, const Moment& moment,
                                  const WithIndex& with_index);

// Fills an empty index. EINVAL if it is damaged (the index is then of no use), ENOENT if missing.
Result<Moment> read_checkpoint(storage::Storage& storage, const log::VolumeId& volume,
                               uint64_t generation, index::Index& index);

// Reads all pages and checks them, without an index. Returns the bytes read. Errors as above.
// `paced` is told of every page; false ends the check.
Result<uint64_t> check_checkpoint(storage::Storage& storage, uint64_t generation,
                                  const std::function<bool(uint64_t bytes)>& paced);

// Removes all but the newest two generations up to `newest`, and unfinished ones.
Status remove_old_checkpoints(storage::Storage& storage, uint64_t newest);

// Bytes of all checkpoints on the disk.
uint64_t checkpoint_bytes(storage::Storage& storage);

}  // namespace valfs::checkpoint
