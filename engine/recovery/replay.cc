#include "engine/recovery/replay.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "engine/base/check.h"
#include "engine/base/planted.h"

namespace valfs::recovery {

using index::Index;
using log::RecordType;

Status Replay::run(const Verdict& verdict, Index::Mode mode) {
  damaged_ =
      !verdict.damaged.empty() || std::any_of(verdict.kept.begin(), verdict.kept.end(),
                                              [](const FoundGroup& group) { return !group.whole; });
  result_.damaged = damaged_;
  // Groups by sequence; what is left of damaged ones before the next group of the same file.
  std::map<log::FileId, std::vector<const Stretch*>> stretches;  // the first one last
  for (auto at = verdict.damaged.rbegin(); at != verdict.damaged.rend(); ++at) {
    stretches[at->file->id].push_back(&*at);
  }
  if (mode == Index::Mode::kSequenceOrder) {
    uint64_t records = 0;
    for (const FoundGroup& group : verdict.kept) records += group.header.record_count;
    kept_.reserve(records);
  }
  for (const FoundGroup& group : verdict.kept) {
    const auto here = stretches.find(group.file->id);
    while (here != stretches.end() && !here->second.empty() &&
           here->second.back()->begin < group.offset) {
      take_stretch(*here->second.back(), mode);
      here->second.pop_back();
    }
    VALFS_TRY(take_group(group, mode));
  }
  for (auto& [file, left] : stretches) {
    for (; !left.empty(); left.pop_back()) take_stretch(*left.back(), mode);
  }
  apply_kept();
  mark_lost();
  return {};
}

Status Replay::take_group(const FoundGroup& group, Index::Mode mode) {
  const log::LogFile& file = *group.file;
  bool unreadable = false;
  read_image(group, image_, unreadable);
  const std::span<const std::byte> image = image_;
  const auto contents =
      log::read_group(image, group.header, files_.salt(file), group.offset, !group.gaps.empty());
  if (group.whole && !contents.whole) {  // and the verdict knows nothing of it
    return fail(EIO, log::log_file_path(file.id) + ": the disk cannot read the group at offset " +
                         std::to_string(group.offset) + " a second time");
  }
  for (const auto& entry : contents.records) {
    if (log::is_from_a_newer_version(entry.found.record.type)) {
      return fail(ENOTSUP, log::log_file_path(file.id) +
                               " was written by a newer version of valfs, which has to mount it");
    }
    take(file, group.offset, entry, image, mode);
    if (!entry.payload_good) result_.damaged_values++;
  }
  lost_.insert(lost_.end(), contents.lost.begin(), contents.lost.end());
  if (!group.whole && !contents.directory_good) {
    result_.warnings.push_back(log::log_file_path(file.id) + ": a damaged group at offset " +
                               std::to_string(group.offset) +
                               " has lost its directory: lost records cannot be named");
  }
  result_.groups++;
  return {};
}

void Replay::take_stretch(const Stretch& stretch, Index::Mode mode) {
  bool unreadable = false;
  const log::LogFile& file = *stretch.file;
  const auto bytes = read_stretch(*file.file, stretch.begin, stretch.end, unreadable);
  const auto records = log::find_records(bytes, files_.salt(file), stretch.begin);
  for (const auto& entry : records) take(file, stretch.begin, entry, bytes, mode);
  result_.warnings.push_back(log::log_file_path(file.id) + ": damage from offset " +
                             std::to_string(stretch.begin) + " to " + std::to_string(stretch.end) +
                             ", " + std::to_string(records.size()) + " records found again");
}

void Replay::take(const log::LogFile& file, uint64_t group_offset,
                  const log::GroupContents::Entry& entry, std::span<const std::byte> image,
                  Index::Mode mode) {
  const log::FoundRecord& found = entry.found;
  const index::Placed placed{log::Position::at(file.id, group_offset + entry.offset),
                             found.meta_length, found.payload_length};
  result_.records++;
  result_.start.next_record = std::max(result_.start.next_record, found.record.sequence + 1);
  result_.start.next_object =
      std::max(result_.start.next_object, log::youngest_object(found.record) + 1);
  if (mode == Index::Mode::kLogOrder) return apply(found.record, placed, mode);
  const auto meta = image.subspan(entry.offset, found.meta_length);
  auto* copy = static_cast<std::byte*>(metas_.allocate(meta.size(), alignof(std::byte)));
  std::copy(meta.begin(), meta.end(), copy);
  kept_.push_back({found.record.sequence, static_cast<uint32_t>(kept_.size()), found.record.type,
                   &file, placed, copy});
}

void Replay::apply_kept() {
  const auto in_order = [](const Kept& a, const Kept& b) {
    if (planted(Bug::kReplayAsFound)) return a.order < b.order;
    return a.sequence != b.sequence ? a.sequence < b.sequence : a.order < b.order;
  };
  if (!std::is_sorted(kept_.begin(), kept_.end(), in_order)) {
    std::sort(kept_.begin(), kept_.end(), in_order);
  }
  size_t inodes = 0;
  size_t names = 0;
  for (const Kept& kept : kept_) {
    inodes += kept.type == RecordType::kInode ? 1 : 0;
    names += kept.type == RecordType::kName ? 1 : 0;
  }
  index_.reserve(inodes, names);
  // In batches, so that the index can have its memory fetched for many records at once.
  constexpr size_t kBatch = 64;
  std::vector<log::Record> batch;
  for (std::span<const Kept> left = kept_; !left.empty(); left = left.subspan(batch.size())) {
    batch.clear();
    for (const Kept& kept : left.first(std::min(kBatch, left.size()))) {
      const auto found = log::decode({kept.meta, kept.placed.meta_length}, files_.salt(*kept.file),
                                     kept.placed.position.offset());
      VALFS_CHECK(found.has_value());
      batch.push_back(found->record);
    }
    index_.expect(batch);
    for (size_t i = 0; i < batch.size(); i++) {
      apply(batch[i], left[i].placed, Index::Mode::kSequenceOrder);
    }
  }
  kept_ = {};
  metas_.release();
}

void Replay::apply(const log::Record& record, const index::Placed& placed, Index::Mode mode) {
  // Copies by the cleaner tell nothing that a replay in order of the log has not seen.
  if (mode != Index::Mode::kLogOrder || (record.flags & log::kCopy) == 0) note_blob(record);
  if (damaged_ && record.type == RecordType::kExtent && !record.name.empty()) {
    result_.name_hints[record.id] = {record.b, std::string(record.name)};
  }
  index_.apply(record, placed, mode);
}

void Replay::note_blob(const log::Record& record) {
  const auto inode = index_.find(record.id);
  switch (record.type) {
    case RecordType::kBlobWrite:
      result_.blobs[record.id].written.emplace_back(record.a, record.a + record.b);
      return;
    case RecordType::kBlobSync:
      result_.blobs[record.id] = {true, record.a, {}};
      return;
    case RecordType::kTruncate: {
      // What is written behind this end is not what was durable there.
      const auto known = result_.blobs.find(record.id);
      if (known != result_.blobs.end()) {
        known->second.synced_size = std::min(known->second.synced_size, record.a);
      } else if (inode != nullptr && inode->attributes.blob != 0) {
        result_.blobs[record.id] = {true, record.a, {}};
      }
      return;
    }
    case RecordType::kInode:
      if (record.body.size() == sizeof(index::Attributes)) {
        index::Attributes attributes;
        std::memcpy(&attributes, record.body.data(), sizeof attributes);
        if (attributes.blob == 0) result_.blobs.erase(record.id);
      }
      return;
    case RecordType::kRemove:
      result_.blobs.erase(record.id);
      return;
    default:
      return;
  }
}

// Values that have lost a record answer EIO: which bytes it held is not known.
void Replay::mark_lost() {
  for (const log::DirectoryEntry& lost : lost_) {
    const auto inode = index_.find(lost.id);
    // Attributes may have named the file in bin/ that holds the value.
    const bool blob = lost.type == RecordType::kInode && inode != nullptr &&
                      inode->attributes.blob == 0 && result_.blobs.count(lost.id) > 0;
    const bool value = blob || lost.type == RecordType::kExtent ||
                       lost.type == RecordType::kTruncate || lost.type == RecordType::kZero ||
                       lost.type == RecordType::kBlobWrite;
    if (planted(Bug::kForgetLostRecords)) continue;
    if (inode != nullptr && value && !inode->damaged) {
      index_.update(lost.id, [](index::Inode& damaged) {
        damaged.damaged = true;
        // A reader of an empty file would never ask, and never learn of it.
        damaged.attributes.size = std::max<uint64_t>(damaged.attributes.size, 1);
      });
      result_.damaged_values++;
    }
    result_.warnings.push_back("a damaged record of object " + std::to_string(lost.id) +
                               " cannot be read" +
                               (inode != nullptr ? ": " + index_.path_of(lost.id) : ""));
  }
}

}  // namespace valfs::recovery
