#include "engine/recovery/replay.h"

#include <algorithm>
#include <cstring>
#include <map>

#include "engine/base/check.h"
#include "engine/base/planted.h"

namespace valfs::recovery {

using index::Index;
using log::RecordType;

namespace {

constexpr size_t kBatch = 64;  // records

// For each group, whether its records are in order, and all younger than those of the groups before
// it: of two records with one sequence the first is then never among those that are collected.
std::vector<bool> find_rising(const std::vector<FoundGroup>& groups) {
  std::vector<bool> rising;
  rising.reserve(groups.size());
  log::RecordSequence last = 0;
  for (const FoundGroup& group : groups) {
    rising.push_back(group.whole && group.rising && group.first_record > last &&
                     !planted(Bug::kReplayAsFound));
    last = std::max(last, group.youngest_record);
  }
  return rising;
}

// Those groups for which `marks` says `mark`; without marks, all.
std::vector<const FoundGroup*> pick(const std::vector<FoundGroup>& groups,
                                    const std::vector<bool>& marks, bool mark) {
  std::vector<const FoundGroup*> picked;
  for (size_t i = 0; i < groups.size(); i++) {
    if (marks.empty() || marks[i] == mark) picked.push_back(&groups[i]);
  }
  return picked;
}

}  // namespace

Status Replay::run(const Verdict& verdict, Index::Mode mode) {
  damaged_ =
      !verdict.damaged.empty() || std::any_of(verdict.kept.begin(), verdict.kept.end(),
                                              [](const FoundGroup& group) { return !group.whole; });
  result_.damaged = damaged_;
  VALFS_TRY(mode == Index::Mode::kLogOrder ? run_in_log_order(verdict)
                                           : run_in_sequence_order(verdict));
  mark_lost();
  return {};
}

// Groups by sequence; what is left of damaged ones before the next group of the same file.
Status Replay::run_in_log_order(const Verdict& verdict) {
  std::map<log::FileId, std::vector<const Stretch*>> stretches;  // the first one last
  for (auto at = verdict.damaged.rbegin(); at != verdict.damaged.rend(); ++at) {
    stretches[at->file->id].push_back(&*at);
  }
  GroupReader groups(pick(verdict.kept, {}, false), files_, ahead_);
  while (const auto* loaded = groups.next()) {
    const FoundGroup& group = *loaded->group;
    const auto here = stretches.find(group.file->id);
    while (here != stretches.end() && !here->second.empty() &&
           here->second.back()->begin < group.offset) {
      take_stretch(*here->second.back(), &Replay::take_now);
      here->second.pop_back();
    }
    VALFS_TRY(take_group(*loaded, &Replay::take_now));
  }
  for (auto& [file, left] : stretches) {
    for (; !left.empty(); left.pop_back()) take_stretch(*left.back(), &Replay::take_now);
  }
  return {};
}

Status Replay::run_in_sequence_order(const Verdict& verdict) {
  const std::vector<bool> rising = find_rising(verdict.kept);
  uint64_t inodes = 0;
  uint64_t names = 0;
  uint64_t out_of_order = 0;
  for (size_t i = 0; i < verdict.kept.size(); i++) {
    inodes += verdict.kept[i].inodes;
    names += verdict.kept[i].names;
    if (!rising[i]) out_of_order += verdict.kept[i].header.record_count;
  }
  index_.reserve(inodes, names);
  kept_.reserve(out_of_order);
  GroupReader disordered(pick(verdict.kept, rising, false), files_, ahead_);
  while (const auto* loaded = disordered.next()) VALFS_TRY(take_group(*loaded, &Replay::keep));
  for (const Stretch& stretch : verdict.damaged) take_stretch(stretch, &Replay::keep);
  sort_kept();
  GroupReader ordered(pick(verdict.kept, rising, true), files_, ahead_);
  while (const auto* loaded = ordered.next()) {
    VALFS_TRY(take_group(*loaded, &Replay::merge));
    apply_batch();  // before the group goes
  }
  merge_kept(UINT64_MAX);
  apply_batch();
  kept_ = {};
  metas_.release();
  return {};
}

Status Replay::take_group(const GroupReader::Loaded& loaded, Take take) {
  const FoundGroup& group = *loaded.group;
  const log::LogFile& file = *group.file;
  const log::GroupContents& contents = loaded.contents;
  if (group.whole && !contents.whole) {  // and the verdict knows nothing of it
    return fail(EIO, log::log_file_path(file.id) + ": the disk cannot read the group at offset " +
                         std::to_string(group.offset) + " a second time");
  }
  for (const auto& entry : contents.records) {
    if (log::is_from_a_newer_version(entry.found.record.type)) {
      return fail(ENOTSUP, log::log_file_path(file.id) +
                               " was written by a newer version of valfs, which has to mount it");
    }
    see(file, group.offset, entry, loaded.image, take);
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

void Replay::take_stretch(const Stretch& stretch, Take take) {
  bool unreadable = false;
  const log::LogFile& file = *stretch.file;
  const auto bytes = read_stretch(*file.file, stretch.begin, stretch.end, unreadable);
  const auto records = log::find_records(bytes, files_.salt(file), stretch.begin);
  for (const auto& entry : records) see(file, stretch.begin, entry, bytes, take);
  result_.warnings.push_back(log::log_file_path(file.id) + ": damage from offset " +
                             std::to_string(stretch.begin) + " to " + std::to_string(stretch.end) +
                             ", " + std::to_string(records.size()) + " records found again");
}

void Replay::see(const log::LogFile& file, uint64_t begin, const log::GroupContents::Entry& entry,
                 std::span<const std::byte> image, Take take) {
  const log::FoundRecord& found = entry.found;
  const index::Placed placed{log::Position::at(file.id, begin + entry.offset), found.meta_length,
                             found.payload_length};
  result_.records++;
  result_.start.next_record = std::max(result_.start.next_record, found.record.sequence + 1);
  result_.start.next_object =
      std::max(result_.start.next_object, log::youngest_object(found.record) + 1);
  (this->*take)(file, found.record, placed, image.subspan(entry.offset, found.meta_length));
}

void Replay::take_now(const log::LogFile& /*file*/, const log::Record& record,
                      const index::Placed& placed, std::span<const std::byte> /*meta*/) {
  apply(record, placed, Index::Mode::kLogOrder);
}

void Replay::keep(const log::LogFile& file, const log::Record& record, const index::Placed& placed,
                  std::span<const std::byte> meta) {
  auto* copy = static_cast<std::byte*>(metas_.allocate(meta.size(), alignof(std::byte)));
  std::copy(meta.begin(), meta.end(), copy);
  kept_.push_back({record.sequence, static_cast<uint32_t>(kept_.size()), &file, placed, copy});
}

// A record and its copy have one sequence, and the copy comes second.
void Replay::merge(const log::LogFile& /*file*/, const log::Record& record,
                   const index::Placed& placed, std::span<const std::byte> /*meta*/) {
  if (!planted(Bug::kMergeCopiesLast)) merge_kept(record.sequence);
  add_to_batch(record, placed);
}

void Replay::sort_kept() {
  const auto in_order = [](const Kept& a, const Kept& b) {
    if (planted(Bug::kReplayAsFound)) return a.order < b.order;
    return a.sequence != b.sequence ? a.sequence < b.sequence : a.order < b.order;
  };
  if (!std::is_sorted(kept_.begin(), kept_.end(), in_order)) {
    std::sort(kept_.begin(), kept_.end(), in_order);
  }
}

// Those with a sequence below `end`.
void Replay::merge_kept(log::RecordSequence end) {
  for (; merged_ < kept_.size() && kept_[merged_].sequence < end; merged_++) {
    const Kept& kept = kept_[merged_];
    const auto found = log::decode({kept.meta, kept.placed.meta_length}, files_.salt(*kept.file),
                                   kept.placed.position.offset());
    VALFS_CHECK(found.has_value());
    add_to_batch(found->record, kept.placed);
  }
}

void Replay::add_to_batch(const log::Record& record, const index::Placed& placed) {
  batch_.push_back(record);
  batch_places_.push_back(placed);
  if (batch_.size() >= kBatch) apply_batch();
}

void Replay::apply_batch() {
  index_.expect(batch_);
  for (size_t i = 0; i < batch_.size(); i++) {
    apply(batch_[i], batch_places_[i], Index::Mode::kSequenceOrder);
  }
  batch_.clear();
  batch_places_.clear();
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
      const auto inode = index_.find(record.id);
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
