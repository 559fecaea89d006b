#include "engine/recovery/recovery.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "engine/checkpoint/checkpoint.h"
#include "engine/log/staging.h"
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
    read_retired(scans);
    if (checkpoint_is_outrun()) {
      forget_checkpoint();
      scans = scan_files();
      read_retired(scans);
    }
    std::set<log::FileId> present;
    for (const log::LogFileRef& file : opened_) present.insert(file->id);
    VALFS_ASSIGN(const Verdict verdict,
                 judge(scans, result_.checkpoint_covers + 1, known_durable(scans), result_.retired,
                       present, options_.missing));
    for (const auto& interval : verdict.lost) lose(interval);
    VALFS_TRY(check_covered_files());
    if (options_.on_verdict) options_.on_verdict(verdict);
    Replay replay(index_, files_, result_);
    VALFS_TRY(replay.run(verdict, result_.used_checkpoint ? index::Index::Mode::kLogOrder
                                                          : index::Index::Mode::kSequenceOrder));
    finish(verdict);
    return std::move(result_);
  }

 private:
  // Promise P1: what a killed daemon had accepted goes to where it was bound for.
  Status drain_staging() {
    if (superblock_.clean != 0) return {};
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
    if (!result_.same_boot) {
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
    for (const log::StagedGroup& group : *groups) VALFS_TRY(drain(group));
    nothing_torn_ = true;
    return {};
  }

  Status drain(const log::StagedGroup& group) {
    const std::string path = log::log_file_path(group.place.salt.file);
    VALFS_ASSIGN(auto file, storage_.open(path, storage::OpenMode::kReadWrite));
    if (!holds(*file, group)) {
      VALFS_TRY(file->write(group.place.offset, group.image));
      VALFS_TRY(file->sync());
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
    const FoundGroup* last_group = nullptr;
    for (const FileScan& scan : scans) {
      for (const FoundGroup& group : scan.groups) {
        if (group.header.sequence <= last) continue;
        last = group.header.sequence;
        last_group = &group;
      }
    }
    for (const FileScan& scan : scans) {
      const bool behind =
          std::any_of(scan.stretches.begin(), scan.stretches.end(), [&](const Stretch& stretch) {
            return last_group == nullptr || stretch.file->id > last_group->file->id ||
                   (stretch.file == last_group->file && stretch.begin > last_group->offset);
          });
      if (behind) return std::max(durable, last + 1);  // one whose header is damaged
    }
    return std::max(durable, last);
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
        result_.unused.push_back(id);
        continue;
      }
      file->sealed = true;
      opened_.push_back(std::move(file));
    }
    return {};
  }

  void load_checkpoint() {
    result_.start.next_record = superblock_.next_record;
    result_.start.next_object = std::max(superblock_.next_object, index::kFirstObject);
    if (superblock_.checkpoint == 0) return;
    auto moment =
        checkpoint::read_checkpoint(storage_, superblock_.volume, superblock_.checkpoint, index_);
    if (!moment) {
      warn(moment.error().what + "; reading the whole log instead");
      index_.clear();
      return;
    }
    result_.used_checkpoint = true;
    result_.checkpoint_covers = moment->covers;
    result_.start.next_record = std::max(result_.start.next_record, moment->next_record);
    result_.start.next_object = std::max(result_.start.next_object, moment->next_object);
    index_.for_each_inode([this](const index::Inode& inode) {
      result_.start.next_record = std::max(result_.start.next_record, inode.sequence + 1);
    });
    for (const auto& interval : moment->retired) result_.retired.add(interval);
    for (const checkpoint::FileEntry& entry : moment->files) covered_[entry.id] = entry;
  }

  // The cleaner has freed groups that the checkpoint does not cover (the disk was too full for a
  // new one): the copies it made stand for records that cannot be replayed any more. All records
  // together, by sequence, still give the index.
  bool checkpoint_is_outrun() const {
    const auto intervals = result_.retired.intervals();
    return result_.used_checkpoint &&
           std::any_of(intervals.begin(), intervals.end(), [this](const auto& interval) {
             return interval.last > result_.checkpoint_covers;
           });
  }

  void forget_checkpoint() {
    index_.clear();
    covered_.clear();
    result_.used_checkpoint = false;
    result_.checkpoint_covers = 0;
    for (const log::LogFileRef& file : opened_) {
      file->end = log::kFirstGroupOffset;
      file->first_group = file->last_group = 0;
      file->highest_object = 0;
    }
  }

  std::vector<FileScan> scan_files() {
    std::vector<FileScan> scans;
    for (const log::LogFileRef& file : opened_) {
      uint64_t from = log::kFirstGroupOffset;
      if (const auto entry = covered_.find(file->id); entry != covered_.end()) {
        from = entry->second.end;
        file->end = entry->second.end;
        file->highest_object = entry->second.highest_object;
        file->first_group = entry->second.first_group;
        file->last_group = entry->second.last_group;
      }
      const uint64_t to = superblock_.cut_of(file->id).value_or(file->size);
      scans.push_back(scan_file(file, files_.salt(*file), from, to));
    }
    return scans;
  }

  void read_retired(const std::vector<FileScan>& scans) {
    const FileScan* youngest = nullptr;
    for (const FileScan& scan : scans) {
      if (scan.retired.empty()) continue;
      if (youngest == nullptr || scan.retired_sequence > youngest->retired_sequence) {
        youngest = &scan;
      }
    }
    if (youngest != nullptr) result_.retired.assign(youngest->retired);
  }

  // Files that the checkpoint points into must be there, unless they were freed since.
  Status check_covered_files() {
    for (const auto& [id, entry] : covered_) {
      const bool there = std::any_of(opened_.begin(), opened_.end(),
                                     [id = id](const auto& file) { return file->id == id; });
      if (there || entry.first_group == 0 || result_.retired.covers(entry.first_group)) continue;
      if (options_.missing == MissingFile::kAccept) {
        lose({entry.first_group, entry.last_group});
        continue;
      }
      return fail(ENODATA, log::log_file_path(id) +
                               " is missing; put it back from a copy of the data directory, or, if "
                               "there is none, let `valfs fsck --repair` accept the loss");
    }
    return {};
  }

  void lose(log::Retired::Interval groups) {
    result_.lost.push_back(groups);
    result_.retired.add(groups);
    warn("groups " + std::to_string(groups.first) + " to " + std::to_string(groups.last) +
         " of the log are lost with their log file");
  }

  // What the log writer and the log files need to know.
  void finish(const Verdict& verdict) {
    result_.dropped_groups = verdict.dropped_groups;
    result_.damaged_groups = verdict.damaged_groups;
    result_.start.next_group = verdict.end + 1;
    for (const FoundGroup& group : verdict.kept) {
      log::LogFile& file = *group.file;
      file.end = std::max(file.end, group.offset + group.length);
      if (file.first_group == 0) file.first_group = group.header.sequence;
      file.last_group = std::max(file.last_group, group.header.sequence);
      file.highest_object = std::max(file.highest_object, group.highest_object);
      result_.start.next_record = std::max(result_.start.next_record, group.header.next_record);
      result_.start.next_object = std::max(result_.start.next_object, group.header.next_object);
    }
    for (const Stretch& stretch : verdict.damaged) {
      stretch.file->end = std::max(stretch.file->end, stretch.end);
      stretch.file->highest_object = UINT64_MAX;  // what it held is not known
    }
    log::LogFileRef last;
    for (const log::LogFileRef& file : opened_) {
      if (file->end == log::kFirstGroupOffset) {
        result_.unused.push_back(file->id);
        continue;
      }
      if (file->end < file->size) result_.cuts.push_back({file->id, 0, file->end});
      files_.adopt(file);
      if (!last || file->last_group > last->last_group) last = file;
    }
    if (last) result_.start.previous_end = log::Position::at(last->id, last->end).packed;
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
  bool nothing_torn_ = false;  // the slots of the last mount are there
  std::vector<log::LogFileRef> opened_;
  std::map<log::FileId, checkpoint::FileEntry> covered_;
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
