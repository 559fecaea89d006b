// What the cleaner copies out of a log file, and what it may leave behind (engine/README.md,
// invariant 3).
#include <algorithm>

#include "engine/base/planted.h"
#include "engine/cleaner/batch.h"
#include "engine/recovery/file_scan.h"

namespace valfs::cleaner {

using log::Record;
using log::RecordType;

// Copies what is live in the group at `offset`. What cannot be copied, and must not be freed, makes
// the source stuck.
Status Cleaner::copy_group(uint64_t offset, uint64_t end, uint64_t& length) {
  storage::File& file = *source_.file->file;
  const log::Salt salt = core_.files.salt(*source_.file);
  bool unreadable = false;
  const auto header_at = [&](uint64_t at) {
    const auto block = recovery::read_stretch(file, at, at + log::kBlock, unreadable);
    return log::decode_group_header(block, salt, at);
  };
  const auto header = header_at(offset);
  if (!header || offset + log::round_up(header->length, log::kBlock) > end) {
    source_.stuck = true;
    return {};
  }
  length = log::round_up(header->length, log::kBlock);
  source_.group = header->sequence;
  const auto image = recovery::read_stretch(file, offset, offset + length, unreadable);
  const auto contents = log::read_group(image, *header, salt, offset);
  const bool all_there = contents.directory_good && contents.lost.empty();
  if (!contents.whole && !all_there) source_.stuck = true;
  return copy_records(offset, contents.records);
}

Status Cleaner::copy_records(uint64_t group_offset,
                             std::span<const log::GroupContents::Entry> entries) {
  const log::FileId file = source_.file->id;
  const auto copy_some = [&](Batch& batch) {
    size_t done = 0;
    for (; done < entries.size(); done++) {
      const auto position = log::Position::at(file, group_offset + entries[done].offset);
      if (!copy(batch, position, entries[done])) break;
    }
    return done;
  };
  Packer packer(core_.options.compression);
  while (!entries.empty()) {
    const size_t ahead = std::min(entries.size(), Batch::kRecords);
    VALFS_TRY(prepare(packer, group_offset, entries.first(ahead)));
    // How much it is first, so that no more room is asked for than is needed: groups stay full.
    const log::GroupContents::Entry& first = entries.front();
    const uint64_t first_length = packer.largest(
        log::Position::at(file, group_offset + first.offset), first.found.total_length);
    const auto most = Batch::size_for(first_length, core_.options.slot_size);
    Transaction::Size size;
    size_t done = 0;
    bool unprepared = false;
    {
      const std::shared_lock lock(core_.state);
      Batch trial(core_.index, packer, most, nullptr);
      done = copy_some(trial);
      size = trial.taken();
      unprepared = trial.unprepared();
    }
    if (size.records == 0) {
      if (done == 0 && !unprepared) {
        return fail(EFBIG, log::log_file_path(file) + ": a record is too large to be copied");
      }
      entries = entries.subspan(done);
      continue;
    }
    await_no_gap();
    VALFS_ASSIGN(
        auto transaction,
        Transaction::begin(core_, size, log::LogWriter::Purpose::kCleaner, source_.target));
    Batch batch(transaction.index(), packer, size, &transaction);
    done = copy_some(batch);
    if (!batch.empty()) {
      bytes_copied_ +=
          batch.commit([this](log::FileId target, log::FileId blocker, uint64_t bytes) {
            const std::lock_guard lock(mutex_);
            pinned_[target][blocker] += bytes;
          });
      compressed_ += batch.compressed();
      compressed_bytes_ += batch.compressed_bytes();
      compressed_raw_bytes_ += batch.compressed_raw_bytes();
    }
    entries = entries.subspan(done);
  }
  return {};
}

// Without the lock that copying needs, compresses what may be copied next.
Status Cleaner::prepare(Packer& packer, uint64_t group_offset,
                        std::span<const log::GroupContents::Entry> entries) {
  std::vector<Packer::Run> runs;
  {
    const std::shared_lock lock(core_.state);
    for (const auto& entry : entries) {
      const Record& record = entry.found.record;
      if (record.type != RecordType::kExtent || !entry.payload_good) continue;
      const auto inode = core_.index.find(record.id);
      if (inode == nullptr) continue;
      const auto position = log::Position::at(source_.file->id, group_offset + entry.offset);
      for (const index::Extent& extent : inode->extents().all()) {
        if (extent.record != position || !packer.needs_form(record, extent)) continue;
        runs.push_back({position, extent, &entry});
      }
    }
  }
  packer.prepare(runs);
  return packer.any_compressed() ? allow_compressed() : Status{};
}

// Before the first compressed record is written, the superblock says that older versions of valfs
// must not mount the volume any more.
Status Cleaner::allow_compressed() {
  constexpr uint32_t kFeature = log::Superblock::kCompressedRecords;
  const std::lock_guard lock(core_.superblock_mutex);
  if ((core_.superblock.incompat & kFeature) != 0) return {};
  core_.superblock.incompat |= kFeature;
  const auto written = log::write_superblock(core_.storage, core_.superblock);
  if (!written) core_.superblock.incompat &= ~kFeature;  // it has to be written again
  return written;
}

// False if the batch is full: the entry has to be looked at again with the next one. What was
// copied of it then is no longer found in its old place.
bool Cleaner::copy(Batch& batch, log::Position position, const log::GroupContents::Entry& entry) {
  const Record& record = entry.found.record;
  const auto inode = batch.index().find(record.id);
  switch (record.type) {
    case RecordType::kInode:
      return inode == nullptr || inode->base != position || batch.renewed(record.id) ||
             renew(batch, record.id);
    case RecordType::kExtent:
      return copy_extent(batch, position, entry);
    case RecordType::kName: {
      // Its touch of the directory's times stays behind.
      if (!renew_if_older(batch, record.sequence, record.b)) return false;
      const auto name = batch.index().find(record.b, record.name);
      if (name == nullptr || name->cookie != record.id || name->record != position) return true;
      Record copy = record;
      copy.flags |= log::kCopy;
      return batch.add(copy);
    }
    case RecordType::kUnname:
      return renew_if_older(batch, record.sequence, record.b) && copy_tombstone(batch, record);
    case RecordType::kRemove:
      return copy_tombstone(batch, record);
    case RecordType::kTruncate:
    case RecordType::kZero:
      if (inode == nullptr) return true;  // its REMOVE covers what this one covered
      if (!renew_if_older(batch, record.sequence, record.id)) return false;
      // Recovery has to know from where on bytes in bin/ may be missing.
      if (blobs_.is_undurable(record.id)) return copy_as_it_is(batch, record);
      return copy_tombstone(batch, record);
    case RecordType::kBlobWrite:
    case RecordType::kBlobSync: {
      if (inode == nullptr) return true;
      if (!renew_if_older(batch, record.sequence, record.id)) return false;
      // Recovery has to know which bytes in bin/ may be missing.
      if (!blobs_.is_undurable(record.id) || planted(Bug::kDropBlobWrites)) return true;
      return copy_as_it_is(batch, record);
    }
    case RecordType::kManifest:
      return true;  // a newer one follows
  }
  return true;
}

bool Cleaner::copy_as_it_is(Batch& batch, const Record& record) {
  Record copy = record;
  copy.flags |= log::kCopy;
  return batch.add(copy);
}

bool Cleaner::copy_extent(Batch& batch, log::Position position,
                          const log::GroupContents::Entry& entry) {
  const Record& record = entry.found.record;
  const auto inode = batch.index().find(record.id);
  if (inode == nullptr) return true;
  if (planted(Bug::kUpdateIndexBlindly)) return copy_as_it_is(batch, record);
  uint64_t live = 0;
  for (const index::Extent& extent : inode->extents().all()) {
    if (extent.record == position) live += extent.length;
  }
  // What a part that is left behind has done to size and times must not go with it.
  const bool part = live < log::raw_length(record, entry.found.payload_length).value_or(UINT64_MAX);
  if (part && !renew_if_older(batch, record.sequence, record.id)) return false;
  if (live == 0) return true;
  if (!entry.payload_good && !planted(Bug::kCopyDamage)) {
    source_.stuck = true;
    return true;
  }
  for (const index::Extent& extent : inode->extents().all()) {
    if (extent.record == position && !copy_run(batch, position, record, extent)) return false;
  }
  return true;
}

bool Cleaner::copy_run(Batch& batch, log::Position position, const Record& record,
                       const index::Extent& extent) {
  Record copy = Packer::copy_of(record, extent);
  if (planted(Bug::kCopyUnderNewSequence)) copy.sequence = 0;
  if (!batch.packer().needs_form(record, extent)) {
    copy.payload = record.payload.subspan(extent.in_payload(), extent.length);
    copy.body = batch.keep(position);
    return batch.add(copy);
  }
  const Packer::Form* form = batch.packer().find(position, extent);
  if (form == nullptr) {
    batch.end_unprepared();
    return false;
  }
  if (form->damaged) {
    source_.stuck = true;
    return true;
  }
  copy.flags |= form->flags;
  copy.body = form->body;
  copy.payload = form->payload;
  if (!batch.add(copy)) return false;
  if (form->raw > 0) batch.note_compressed(copy.total_length(), form->raw);
  return true;
}

// The oldest file that may hold a record which this tombstone cancels; 0 if there is none.
log::FileId Cleaner::blocker_of(const Record& record, log::GroupSequence origin) const {
  const uint64_t least = record.id + (planted(Bug::kTombstoneOffByOne) ? 1 : 0);
  for (const Other& other : source_.others) {
    if (other.first_group <= origin && other.highest_object >= least) return other.id;
  }
  return 0;
}

bool Cleaner::copy_tombstone(Batch& batch, const Record& record) const {
  Record copy = record;
  copy.flags |= log::kCopy;
  copy.origin = record.origin != 0 ? record.origin : source_.group;
  const log::FileId blocker = blocker_of(record, copy.origin);
  if (planted(Bug::kDropTombstones)) return true;
  return blocker == 0 || batch.add(copy, blocker);
}

// Writes an inode's attributes anew, as they are, under the sequence that made them so.
bool Cleaner::renew(Batch& batch, log::ObjectId id) const {
  const index::Inode inode = *batch.index().find(id);
  Record record;
  record.type = RecordType::kInode;
  record.flags = inode.lossy ? log::kCopy | log::kLossy : log::kCopy;
  record.id = id;
  record.sequence = inode.sequence;
  record.body = batch.keep(inode.attributes);
  return batch.add(record);
}

// The inode's INODE record has to know what a record of sequence `than` has done to the attributes,
// before that one may go.
bool Cleaner::renew_if_older(Batch& batch, log::RecordSequence than, log::ObjectId id) const {
  const auto inode = batch.index().find(id);
  if (planted(Bug::kForgetAttributes)) return true;
  if (inode == nullptr || inode->sums || !inode->base || inode->base_sequence >= than) return true;
  return batch.renewed(id) || renew(batch, id);
}

}  // namespace valfs::cleaner
