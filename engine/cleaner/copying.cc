// What the cleaner copies out of a log file, and what it may leave behind (engine/README.md,
// invariant 3).
#include <algorithm>

#include "engine/cleaner/batch.h"
#include "engine/recovery/file_scan.h"

namespace valfs::cleaner {

using log::Record;
using log::RecordType;

// Copies what is live in the group at `offset`; where there is none, looks for records anyway.
Status Cleaner::copy_group(const log::LogFileRef& file, uint64_t offset, uint64_t end,
                           uint64_t& length) {
  const log::Salt salt = core_.files.salt(*file);
  bool unreadable = false;
  const auto header_at = [&](uint64_t at) {
    const auto block = recovery::read_stretch(*file->file, at, at + log::kBlock, unreadable);
    return log::decode_group_header(block, salt, at);
  };
  const auto header = header_at(offset);
  if (!header) {
    damaged_ = true;
    length = log::kBlock;
    while (offset + length + log::kBlock <= end && !header_at(offset + length)) {
      length += log::kBlock;
    }
    const auto image = recovery::read_stretch(*file->file, offset, offset + length, unreadable);
    return copy_records(*file, offset, log::find_records(image, salt, offset));
  }
  length = log::round_up(header->length, log::kBlock);
  const auto image = recovery::read_stretch(*file->file, offset, offset + length, unreadable);
  const auto contents = log::read_group(image, *header, salt, offset);
  const bool all_there = contents.directory_good && contents.lost.empty();
  damaged_ |= !contents.whole && !all_there;
  return copy_records(*file, offset, contents.records);
}

Status Cleaner::copy_records(const log::LogFile& file, uint64_t group_offset,
                             std::span<const log::GroupContents::Entry> entries) {
  const auto copy_some = [&](Batch& batch) {
    size_t done = 0;
    for (; done < entries.size(); done++) {
      const auto position = log::Position::at(file.id, group_offset + entries[done].offset);
      if (!copy(batch, file, position, entries[done])) break;
    }
    return done;
  };
  while (!entries.empty()) {
    // How much it is first, so that no more room is asked for than is needed: groups stay full.
    const auto most = Batch::size_for(entries.front().found.total_length, core_.options.slot_size);
    Transaction::Size size;
    size_t done = 0;
    {
      const std::shared_lock lock(core_.state);
      Batch trial(core_.index, most, nullptr);
      done = copy_some(trial);
      size = trial.taken();
    }
    if (size.records == 0) {
      if (done == 0) {
        return fail(EFBIG, log::log_file_path(file.id) + ": a record is too large to be copied");
      }
      entries = entries.subspan(done);
      continue;
    }
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(core_, size, log::LogWriter::Purpose::kCleaner));
    Batch batch(transaction.index(), size, &transaction);
    done = copy_some(batch);
    if (!batch.empty()) {
      bytes_copied_ +=
          batch.commit([this](log::FileId target, log::FileId blocker, uint64_t bytes) {
            const std::lock_guard lock(mutex_);
            pinned_[target][blocker] += bytes;
          });
    }
    entries = entries.subspan(done);
  }
  return {};
}

// False if the batch is full: the entry has to be looked at again with the next one. What was
// copied of it then is no longer found in its old place.
bool Cleaner::copy(Batch& batch, const log::LogFile& file, log::Position position,
                   const log::GroupContents::Entry& entry) const {
  const Record& record = entry.found.record;
  const index::Inode* inode = batch.index().find(record.id);
  switch (record.type) {
    case RecordType::kInode:
      return inode == nullptr || inode->base != position || renew_if_older(batch, file, record.id);
    case RecordType::kExtent:
      return copy_extent(batch, file, position, entry);
    case RecordType::kName: {
      // Its touch of the directory's times stays behind.
      if (!renew_if_older(batch, file, record.b)) return false;
      const index::Name* name = batch.index().find(record.b, record.name);
      if (name == nullptr || name->cookie != record.id || name->record != position) return true;
      Record copy = record;
      copy.flags |= log::kCopy;
      return batch.add(copy);
    }
    case RecordType::kUnname:
      return renew_if_older(batch, file, record.b) && copy_tombstone(batch, file, record);
    case RecordType::kRemove:
      return copy_tombstone(batch, file, record);
    case RecordType::kTruncate:
    case RecordType::kZero:
      if (inode == nullptr) return true;  // its REMOVE covers what this one covered
      return renew_if_older(batch, file, record.id) && copy_tombstone(batch, file, record);
    case RecordType::kBlobWrite:
    case RecordType::kBlobSync: {
      if (inode == nullptr) return true;
      if (!renew_if_older(batch, file, record.id)) return false;
      // Recovery has to know which bytes in bin/ may be missing.
      if (!blobs_.is_undurable(record.id)) return true;
      Record copy = record;
      copy.flags |= log::kCopy;
      return batch.add(copy);
    }
    case RecordType::kRetired:
      return true;  // a newer one, with all intervals, follows
  }
  return true;
}

bool Cleaner::copy_extent(Batch& batch, const log::LogFile& file, log::Position position,
                          const log::GroupContents::Entry& entry) const {
  const Record& record = entry.found.record;
  const index::Inode* inode = batch.index().find(record.id);
  if (inode == nullptr) return true;
  uint64_t live = 0;
  for (const index::Extent& extent : inode->extents.all()) {
    if (extent.record == position) live += extent.length;
  }
  // What a part that is left behind has done to size and times must not go with it.
  if (live < record.payload.size() && !renew_if_older(batch, file, record.id)) return false;
  if (live == 0 || !entry.payload_good) return true;
  for (const index::Extent& extent : inode->extents.all()) {
    if (extent.record != position) continue;
    Record copy = record;
    copy.flags |= log::kCopy;
    copy.a = extent.offset;
    copy.payload = record.payload.subspan(extent.lead - extent.meta, extent.length);
    copy.body = batch.keep(position);
    if (copy.name.size() > 255) copy.name = {};
    if (!batch.add(copy)) return false;
  }
  return true;
}

// The oldest file that may hold a record which this tombstone cancels; 0 if there is none.
log::FileId Cleaner::blocker_of(const Record& record, log::FileId origin) const {
  for (const Other& other : others_) {
    if (other.id <= origin && other.highest_object >= record.id) return other.id;
  }
  return 0;
}

bool Cleaner::copy_tombstone(Batch& batch, const log::LogFile& file, const Record& record) const {
  Record copy = record;
  copy.flags |= log::kCopy;
  copy.origin = record.origin != 0 ? record.origin : file.id;
  const log::FileId blocker = blocker_of(record, copy.origin);
  return blocker == 0 || batch.add(copy, blocker);
}

// Writes an inode's attributes anew, as they are, under the sequence that made them so.
bool Cleaner::renew(Batch& batch, log::ObjectId id) const {
  const index::Inode& inode = *batch.index().find(id);
  Record record;
  record.type = RecordType::kInode;
  record.flags = inode.lossy ? log::kCopy | log::kLossy : log::kCopy;
  record.id = id;
  record.sequence = inode.sequence;
  record.body = batch.keep(inode.attributes);
  return batch.add(record);
}

// An INODE record in a younger file was written after everything in this one, and holds what it has
// done to the attributes.
bool Cleaner::renew_if_older(Batch& batch, const log::LogFile& file, log::ObjectId id) const {
  const index::Inode* inode = batch.index().find(id);
  if (inode == nullptr || inode->sums || !inode->base || inode->base.file() > file.id) return true;
  return batch.renewed(id) || renew(batch, id);
}

}  // namespace valfs::cleaner
