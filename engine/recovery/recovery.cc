#include "engine/recovery/recovery.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>

#include "engine/base/planted.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/log/staging.h"
#include "engine/recovery/in_parallel.h"
#include "engine/recovery/replay.h"
#include "engine/recovery/verdict.h"

namespace valfs::recovery {
namespace {

class Recovery {
 public:
  Recovery(storage::Storage& storage, const log::Superblock& superblock, log::LogFiles& files,
           index::Index& index, const RecoverOptions& options)
      : storage_(storage),
        superblock_(superblock),
        files_(files),
        index_(index),
        options_(options) {}

  Result<Recovered> run() {
    result_.same_boot = superblock_.boot_id_is(storage_.boot_id());
    VALFS_TRY(drain_staging());
    VALFS_TRY(open_files());
    load_checkpoint();
    auto scans = scan_files();
    manifest_ = youngest_manifest(scans, UINT64_MAX);
    if (checkpoint_is_outrun()) {
      forget_checkpoint();
      scans = scan_files();
      manifest_ = youngest_manifest(scans, UINT64_MAX);
    }
    Evidence evidence;
    evidence.first = result_.checkpoint_covers + 1;
    evidence.durable = known_durable(scans);
    evidence.manifest = manifest_;
    evidence.manifest_up_to = [&](log::GroupSequence last) {
      return last >= manifest_.group() ? manifest_ : youngest_manifest(scans, last);
    };
    evidence.manifest_lost = manifest_lost_;
    for (const log::LogFileRef& file : opened_) evidence.present[file->id] = file->size;
    for (const log::FileId id : result_.unrecognised) evidence.present[id] = 0;
    evidence.freed.insert(superblock_.freed.begin(), superblock_.freed.end());
    evidence.missing = options_.missing;
    VALFS_ASSIGN(Verdict verdict, judge(scans, evidence));
    if (verdict.unreadable) VALFS_TRY(check_end_is_readable(verdict));
    manifest_ = verdict.manifest;
    drop_freed(verdict);
    if (options_.on_verdict) options_.on_verdict(verdict);
    Replay replay(index_, files_, storage_.readers() > 1, result_);
    VALFS_TRY(replay.run(verdict, result_.used_checkpoint ? index::Index::Mode::kLogOrder
                                                          : index::Index::Mode::kSequenceOrder));
    VALFS_TRY(check_covered_files(evidence.freed, verdict));
    note_lost(verdict);
    finish(verdict);
    return std::move(result_);
  }

 private:
  // Promise P1: what a killed daemon had accepted goes to where it was bound for.
  Status drain_staging() {
    if (superblock_.clean != 0 || planted(Bug::kDropStaging)) return {};
    auto memory = storage_.find_staging(staging_name(superblock_.volume));
    if (!memory) {
      if (memory.error().code != ENOENT) return tl::unexpected(memory.error());
      if (result_.same_boot) {
        warn(
            "the last mount did not end cleanly and its staging slots are gone: what was written "
            "in its last moments and not synced may be lost");
      }
      return {};
    }
    if (!result_.same_boot && !planted(Bug::kTrustOldStaging)) {
      warn(
          "the machine was restarted without unmounting: what was written in the last moments and "
          "not synced is lost");
      return {};
    }
    auto groups = log::read_staging((*memory)->bytes(), superblock_.volume, superblock_.epoch,
                                    superblock_.next_record, superblock_.next_object);
    if (!groups) {
      warn("staging slots set aside: " + groups.error().what);
      return {};
    }
    for (const log::StagedGroup& group : *groups) {
      VALFS_TRY(drain(group));
      // It was about to be moved elsewhere when the daemon died, and counts where it is.
      const auto cut = superblock_.cut_of(group.place.salt.file);
      if (cut && group.place.offset >= *cut) uncut_.insert(group.place.salt.file);
    }
    nothing_torn_ = true;
    return {};
  }

  Status drain(const log::StagedGroup& group) {
    const std::string path = log::log_file_path(group.place.salt.file);
    auto opened = storage_.open(path, storage::OpenMode::kReadWrite);
    if (!opened && opened.error().code == ENOENT) {
      if (options_.missing == MissingFile::kRefuse) return missing_file(group.place.salt.file);
      warn("a staged group is lost: its log file " + path + " is missing");
      return {};
    }
    if (!opened) return tl::unexpected(opened.error());
    const auto& file = *opened;
    if (!holds(*file, group)) {
      VALFS_TRY(file->write(group.place.offset, group.image));
      if (!planted(Bug::kDrainAtEndOnly)) VALFS_TRY(file->sync());
      result_.drained++;
    }
    return {};
  }

  // A group is either in its slot or wholly in its file, as long as the slots survive: then what is
  // not whole in a file is damaged, and not torn.
  log::GroupSequence known_durable(const std::vector<FileScan>& scans) const {
    log::GroupSequence durable = superblock_.durable_group;
    if (!nothing_torn_) return durable;
    log::GroupSequence last = result_.checkpoint_covers;
    bool trace = false;  // of a group whose header is damaged
    for (const FileScan& scan : scans) {
      for (const FoundGroup& group : scan.groups) last = std::max(last, group.header.sequence);
      const log::FileId id = scan.file->id;
      const uint64_t begin = manifest_.begin_of(id).value_or(0);
      const uint64_t left_at = manifest_.end_of(id).value_or(UINT64_MAX);
      if (scan.stretches.empty() || manifest_.gone(id)) continue;
      const Stretch& stretch = scan.stretches.back();
      // Of what was freed, and of what lies behind the end of a sealed file, nothing is missing.
      trace |= stretch.last && stretch.end > begin && std::max(stretch.begin, begin) < left_at;
    }
    return std::max(durable, trace ? last + 1 : last);
  }

  // True if the group reached its place before the daemon died.
  static bool holds(storage::File& file, const log::StagedGroup& group) {
    bool unreadable = false;
    const auto image =
        read_stretch(file, group.place.offset, group.place.offset + group.image.size(), unreadable);
    const auto header = log::decode_group_header(image, group.place.salt, group.place.offset);
    return header && header->sequence == group.place.sequence &&
           log::read_group(image, *header, group.place.salt, group.place.offset).whole;
  }

  Status open_files() {
    VALFS_ASSIGN(const auto ids, list_log_files(storage_));
    result_.next_file = superblock_.next_file;
    for (const log::FileId id : ids) {
      result_.next_file = std::max(result_.next_file, id + 1);
      VALFS_ASSIGN(auto file, open_log_file(storage_, superblock_.volume, id));
      if (!file) {
        result_.unrecognised.push_back(id);
        continue;
      }
      file->sealed = true;
      file->mapped = false;
      if (const auto footer = log::read_footer(*file->file, files_.salt(*file), file->size)) {
        file->footer = file->size - footer->end;
      }
      opened_.push_back(std::move(file));
    }
    return {};
  }

  // The newest one that is whole. An older one costs a longer replay, and only that: unless the
  // cleaner has freed since what it does not cover.
  void load_checkpoint() {
    result_.start.next_record = superblock_.next_record;
    result_.start.next_object = std::max(superblock_.next_object, index::kFirstObject);
    const uint64_t newest = superblock_.checkpoint;
    for (uint64_t generation = newest; generation != 0 && generation + 1 >= newest; generation--) {
      auto moment = checkpoint::read_checkpoint(storage_, superblock_.volume, generation, index_);
      if (moment) return take_checkpoint(*moment, generation == newest);
      // There is an older one only if there have been two.
      if (generation == newest || moment.error().code != ENOENT) warn(moment.error().what);
      index_.clear();
    }
    if (newest != 0) warn("no checkpoint is whole; reading the whole log instead");
  }

  void take_checkpoint(const checkpoint::Moment& moment, bool newest) {
    result_.used_checkpoint = true;
    result_.used_older_checkpoint = !newest;
    result_.checkpoint_covers = moment.covers;
    result_.newest_freed = moment.newest_freed;
    result_.start.next_record = std::max(result_.start.next_record, moment.next_record);
    result_.start.next_object = std::max(result_.start.next_object, moment.next_object);
    result_.start.next_record = std::max(result_.start.next_record, index_.youngest_restored() + 1);
    for (const checkpoint::FileEntry& entry : moment.files) covered_[entry.id] = entry;
  }

  // The cleaner has freed groups that the checkpoint does not cover (the disk was too full for a
  // new one): the copies it made stand for records that cannot be replayed any more. All records
  // together, by sequence, still give the index.
  bool checkpoint_is_outrun() const {
    if (planted(Bug::kOutrunCheckpoint)) return false;
    return result_.used_checkpoint && manifest_.newest_freed() > result_.checkpoint_covers;
  }

  void forget_checkpoint() {
    index_.clear();
    covered_.clear();
    result_.used_checkpoint = false;
    result_.used_older_checkpoint = false;
    result_.checkpoint_covers = 0;
    result_.newest_freed = 0;
    for (const log::LogFileRef& file : opened_) {
      file->begin = file->end = log::kFirstGroupOffset;
      file->first_group = file->last_group = 0;
      file->highest_object = 0;
    }
  }

  std::optional<FileScan> read_by_footer(const log::LogFileRef& file, uint64_t from) const {
    if (file->footer == 0 || cut_of(*file)) return std::nullopt;
    const auto footer = log::read_footer(*file->file, files_.salt(*file), file->size);
    if (!footer) return std::nullopt;
    return scan_by_footer(file, files_.salt(*file), *footer, from);
  }

  std::optional<uint64_t> cut_of(const log::LogFile& file) const {
    return uncut_.count(file.id) > 0 ? std::nullopt : superblock_.cut_of(file.id);
  }

  // Where what the checkpoint does not cover begins in a file.
  uint64_t take_covered(log::LogFile& file) const {
    const auto entry = covered_.find(file.id);
    if (entry == covered_.end()) return log::kFirstGroupOffset;
    file.stream = entry->second.stream;
    file.begin = entry->second.begin;
    file.end = entry->second.end;
    file.highest_object = entry->second.highest_object;
    file.first_group = entry->second.first_group;
    file.last_group = entry->second.last_group;
    return entry->second.end;
  }

  std::vector<FileScan> scan_files() {
    std::vector<FileScan> scans(opened_.size());
    std::atomic<uint64_t> by_footer{0};
    in_parallel(storage_.readers(), opened_.size(), [&](size_t i) {
      const log::LogFileRef& file = opened_[i];
      const uint64_t from = take_covered(*file);
      const bool spare_payloads = options_.by_footers && !result_.used_checkpoint;
      if (auto scan = spare_payloads ? read_by_footer(file, from) : std::nullopt) {
        by_footer++;
        scans[i] = std::move(*scan);
        return;
      }
      const uint64_t to = cut_of(*file).value_or(file->size - file->footer);
      scans[i] = scan_file(file, files_.salt(*file), from, to);
    });
    result_.footers_used += by_footer;
    for (const FileScan& scan : scans) {
      if (scan.unreadable) unreadable_.insert(scan.file->id);
    }
    return scans;
  }

  // The youngest manifest up to group `last`.
  log::Manifest youngest_manifest(const std::vector<FileScan>& scans, log::GroupSequence last) {
    std::vector<std::pair<const FoundManifest*, const FileScan*>> found;
    for (const FileScan& scan : scans) {
      for (const FoundManifest& manifest : scan.manifests) {
        if (manifest.group <= last) found.emplace_back(&manifest, &scan);
      }
    }
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.first->group > b.first->group; });
    if (planted(Bug::kOldestManifest)) std::reverse(found.begin(), found.end());
    manifest_lost_ = false;
    for (const auto& [manifest, scan] : found) {
      if (manifest->good) {
        if (auto read = read_manifest(*scan, files_.salt(*scan->file), *manifest)) {
          return std::move(*read);
        }
      }
      manifest_lost_ = true;
    }
    return {};
  }

  // Files that the checkpoint points into must be there, unless they were freed since.
  Status check_covered_files(const std::set<log::FileId>& freed, Verdict& verdict) {
    for (const auto& [id, entry] : covered_) {
      const bool there = std::any_of(opened_.begin(), opened_.end(),
                                     [id = id](const auto& file) { return file->id == id; });
      const bool listed = manifest_.group() > entry.last_group && manifest_.freed(id, entry.end);
      const bool gone = freed.count(id) > 0 || listed;
      const bool empty = entry.first_group == 0 || entry.begin >= entry.end;
      if (there || empty || gone || manifest_lost_) continue;
      if (index_.live().of(id) == 0) {  // it was freed, and what said so is damaged
        warn(log::log_file_path(id) + " is missing; nothing in it was in use");
        continue;
      }
      if (options_.missing == MissingFile::kAccept) {
        verdict.lost_files.insert(id);
        continue;
      }
      return missing_file(id);
    }
    return {};
  }

  void note_lost(const Verdict& verdict) {
    result_.lost_files = verdict.lost_files;
    result_.lost_tail = verdict.lost_tail;
    for (const log::FileId id : verdict.lost_files) {
      result_.next_file = std::max(result_.next_file, id + 1);
      warn(log::log_file_path(id) + ": what this log file held is lost");
    }
    if (verdict.lost_tail) {
      warn("the last groups of the log, up to " + std::to_string(verdict.end) +
           ", are lost with their log file");
    }
  }

  // What the cleaner had freed may be there still, or in part: it no longer counts.
  void drop_freed(Verdict& verdict) {
    if (manifest_.group() == 0 || planted(Bug::kFreedComesBack)) return;
    std::erase_if(verdict.kept, [this](const FoundGroup& group) {
      return group.header.sequence < manifest_.group() &&
             manifest_.freed(group.file->id, group.offset + group.length);
    });
    result_.newest_freed = std::max(result_.newest_freed, manifest_.newest_freed());
  }

  // Where the last group lies is known only if all that follows it can be read: in a block that
  // cannot, an acknowledged group may begin. A mount would cut it off, and give its sequence to
  // another.
  Status check_end_is_readable(const Verdict& verdict) const {
    for (const log::LogFileRef& file : opened_) {
      if (unreadable_.count(file->id) == 0) continue;  // the scan has read it all
      if (verdict.manifest.end_of(file->id) || verdict.manifest.gone(file->id)) continue;
      const uint64_t to = cut_of(*file).value_or(file->size - file->footer);
      uint64_t from = file->end;  // what the checkpoint covers needs no groups
      for (const FoundGroup& group : verdict.kept) {
        if (group.file == file) from = std::max(from, group.offset + group.length);
      }
      const auto at = first_unreadable(*file->file, from, to);
      if (!at) continue;
      return fail(EIO, log::log_file_path(file->id) + ": the disk cannot read it at offset " +
                           std::to_string(*at) +
                           ", where the log may go on; copy the data directory to a sound disk");
    }
    return {};
  }

  // What the log writer and the log files need to know.
  void finish(const Verdict& verdict) {
    result_.dropped_groups = verdict.dropped_groups;
    result_.damaged_groups = verdict.damaged_groups;
    result_.start.next_group = verdict.end + 1;
    for (const FoundGroup& group : verdict.kept) {
      log::LogFile& file = *group.file;
      file.stream = group.header.stream;
      file.end = std::max(file.end, group.offset + group.length);
      if (file.first_group == 0) file.first_group = group.header.sequence;
      file.last_group = std::max(file.last_group, group.header.sequence);
      file.highest_object = std::max(file.highest_object, group.highest_object);
      result_.replayed_bytes += group.length;
      result_.start.next_record = std::max(result_.start.next_record, group.header.next_record);
      result_.start.next_object = std::max(result_.start.next_object, group.header.next_object);
    }
    for (const Stretch& stretch : verdict.damaged) {
      stretch.file->end = std::max(stretch.file->end, stretch.end);
      stretch.file->highest_object = UINT64_MAX;  // what it held is not known
    }
    if (planted(Bug::kReuseRecordSequences)) {
      result_.start.next_record = superblock_.next_record;
    }
    if (planted(Bug::kReuseObjectIds)) {
      result_.start.next_object = std::max(superblock_.next_object, index::kFirstObject);
    }
    log::LogFileRef last;
    for (const log::LogFileRef& file : opened_) {
      file->begin = std::max(file->begin, manifest_.begin_of(file->id).value_or(0));
      // Only one that has been cut off, which was accepted, is shorter than what is known of it.
      file->end = std::min(file->end, file->size / log::kBlock * log::kBlock);
      if (file->end <= file->begin) {
        result_.unused.push_back(file->id);
        continue;
      }
      if (file->end + file->footer < file->size) {
        result_.cuts.push_back({file->id, 0, file->end});
        file->footer = 0;
      }
      files_.adopt(file);
      if (!last || file->last_group > last->last_group) last = file;
    }
    // Nowhere, if nobody knows where the last group was.
    if (!verdict.kept.empty() && !verdict.lost_tail) {
      const FoundGroup& group = verdict.kept.back();
      result_.start.previous_end =
          log::Position::at(group.file->id, group.offset + group.length).packed;
    } else if (last && !verdict.lost_tail) {
      result_.start.previous_end = log::Position::at(last->id, last->end).packed;
    }
    if (verdict.unreadable) warn("the disk could not read some blocks of the log");
    if (verdict.damaged_groups > 0) {
      warn(std::to_string(verdict.damaged_groups) +
           " acknowledged groups of the log are damaged; "
           "the values they held answer EIO");
    }
  }

  void warn(std::string text) { result_.warnings.push_back(std::move(text)); }

  storage::Storage& storage_;
  const log::Superblock& superblock_;
  log::LogFiles& files_;
  index::Index& index_;
  const RecoverOptions& options_;
  Recovered result_;
  std::set<log::FileId> uncut_;  // whose cuts no longer count
  bool nothing_torn_ = false;    // the slots of the last mount are there
  std::vector<log::LogFileRef> opened_;
  std::set<log::FileId> unreadable_;  // in part
  std::map<log::FileId, checkpoint::FileEntry> covered_;
  log::Manifest manifest_;
  bool manifest_lost_ = false;  // a younger one cannot be read
};

}  // namespace

std::string staging_name(const log::VolumeId& volume) {
  return "staging-" + volume.text();
}

Result<Recovered> recover(storage::Storage& storage, const log::Superblock& superblock,
                          log::LogFiles& files, index::Index& index,
                          const RecoverOptions& options) {
  return Recovery(storage, superblock, files, index, options).run();
}

}  // namespace valfs::recovery
