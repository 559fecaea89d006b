#include "engine/recovery/verdict.h"

#include <algorithm>

#include "engine/base/planted.h"

namespace valfs::recovery {
namespace {

using log::GroupSequence;

constexpr const char* kWhatToDo =
    "; put the log file back from a copy of the data directory, or, if there is none, let `valfs "
    "fsck --repair` accept the loss";

class Judge {
 public:
  Judge(std::vector<FileScan> scans, const Evidence& evidence)
      : scans_(std::move(scans)), evidence_(evidence), expected_(evidence.first) {
    verdict_.watermark = evidence.durable;
    verdict_.end = evidence.first == 0 ? 0 : evidence.first - 1;
    for (const FileScan& scan : scans_) {
      verdict_.unreadable |= scan.unreadable;
      for (const FoundGroup& group : scan.groups) {
        if (!planted(Bug::kNoWatermark)) {
          verdict_.watermark = std::max(verdict_.watermark, group.header.watermark);
        }
        if (group.header.sequence >= evidence.first) groups_.push_back(group);
      }
    }
    // A group that was moved after a failed write may be there twice: whole is better than not, and
    // the younger file is the one in which it was acknowledged.
    std::sort(groups_.begin(), groups_.end(), [](const FoundGroup& a, const FoundGroup& b) {
      if (a.header.sequence != b.header.sequence) return a.header.sequence < b.header.sequence;
      return a.whole != b.whole ? a.whole : a.file->id > b.file->id;
    });
    groups_.erase(std::unique(groups_.begin(), groups_.end(),
                              [](const FoundGroup& a, const FoundGroup& b) {
                                return a.header.sequence == b.header.sequence;
                              }),
                  groups_.end());
  }

  Result<Verdict> run() {
    VALFS_TRY(check_manifest());
    size_t next = 0;
    bool open = true;  // the end of the log has not been met
    while (open && next < groups_.size()) {
      const FoundGroup& group = groups_[next];
      VALFS_TRY(meet_missing(group, open));
      if (!open) break;
      // What is missing before it is accounted for, even if the group itself turns out to be torn.
      if (group.header.sequence > expected_) {
        expected_ = group.header.sequence;
        verdict_.end = expected_ - 1;
      }
      const bool gone =
          is_freed(group.header.sequence, group.file->id, group.offset + group.length);
      const bool torn = !group.whole && !gone && group.header.sequence > verdict_.watermark;
      if (torn && !planted(Bug::kKeepTornGroup)) break;
      if (!group.whole && !gone) verdict_.damaged_groups++;
      // What was punched out in part is as good as gone.
      if (group.whole || !gone) verdict_.kept.push_back(group);
      verdict_.end = group.header.sequence;
      expected_ = group.header.sequence + 1;
      next++;
    }
    verdict_.dropped_groups = groups_.size() - next;
    VALFS_TRY(meet_tail());
    verdict_.manifest = evidence_.manifest_up_to(verdict_.end);
    find_damaged_stretches();
    return std::move(verdict_);
  }

 private:
  // Files that the manifest knows have to be there.
  Status check_manifest() {
    if (evidence_.manifest_lost) return {};
    for (const log::ManifestEntry& entry : evidence_.manifest.entries()) {
      if (entry.empty != 0) continue;
      VALFS_TRY(check_file(entry.file, uint64_t{entry.end} * log::kBlock));
    }
    return {};
  }

  Status check_file(log::FileId file, uint64_t end) {
    if (evidence_.freed.count(file) > 0 || planted(Bug::kMissingLogFile)) return {};
    const auto there = evidence_.present.find(file);
    const bool whole = there != evidence_.present.end() && there->second >= end;
    if (!whole && evidence_.missing == MissingFile::kAccept) {
      verdict_.lost_files.insert(file);
      return {};
    }
    if (there == evidence_.present.end()) return missing_file(file);
    if (there->second < end) {
      return fail(ENODATA, log::log_file_path(file) + " has " + std::to_string(there->second) +
                               " bytes, and should have " + std::to_string(end) + kWhatToDo);
    }
    return {};
  }

  bool is_freed(GroupSequence group, log::FileId file, uint64_t end) const {
    const bool listed = evidence_.manifest.group() > group && evidence_.manifest.freed(file, end);
    return listed || evidence_.freed.count(file) > 0;
  }

  // Groups that should come before `group` and do not.
  Status meet_missing(const FoundGroup& group, bool& open) {
    const GroupSequence missing = expected_;
    const GroupSequence last_missing = group.header.sequence - 1;
    if (missing > last_missing) return {};
    const log::Position end{group.header.previous_end};  // of the last missing one
    // What the cleaner has freed was durable, and so was everything before it. If more than that is
    // missing, the places where it lay will show it. The same for what a repair has given up: it
    // may not have known where that lay.
    if (!end || is_freed(last_missing, end.file(), end.offset())) return {};
    if (missing > verdict_.watermark && !planted(Bug::kKeepBehindHole)) {
      open = false;  // unacknowledged groups that completed out of order
      return {};
    }
    const bool may_be_freed = evidence_.manifest_lost && evidence_.present.count(end.file()) == 0;
    if (may_be_freed) return {};
    if (was_given_up(last_missing, end)) return {};
    VALFS_TRY(check_file(end.file(), end.offset()));
    if (verdict_.lost_files.count(end.file()) > 0) return {};
    uint64_t& known = missing_ends_[end.file()];
    known = std::max(known, end.offset());
    const bool some_freed = evidence_.manifest.group() > missing;
    verdict_.damaged_groups += some_freed ? 1 : last_missing - missing + 1;
    return {};
  }

  // A younger manifest says that the file ends before: it had been cut off, and that was accepted.
  bool was_given_up(GroupSequence group, log::Position end) const {
    const auto left_at = evidence_.manifest.end_of(end.file());
    return evidence_.manifest.group() > group && left_at && *left_at < end.offset();
  }

  // Acknowledged groups behind the last one that was found.
  Status meet_tail() {
    if (expected_ > verdict_.watermark) return {};
    const bool trace = std::any_of(scans_.begin(), scans_.end(), [this](const FileScan& scan) {
      return !scan.stretches.empty() && scan.stretches.back().last &&
             !evidence_.manifest.gone(scan.file->id);
    });
    const bool accepted = evidence_.missing == MissingFile::kAccept;
    if (!trace && accepted) {
      // That may be all of what is known to be missing.
      verdict_.lost_tail = true;
      verdict_.end = verdict_.watermark;
      return {};
    }
    if (!trace) {
      return fail(ENODATA, "groups " + std::to_string(expected_) + " to " +
                               std::to_string(verdict_.watermark) +
                               " of the log are missing: a log file is gone" + kWhatToDo);
    }
    verdict_.damaged_groups += verdict_.watermark - expected_ + 1;
    verdict_.end = verdict_.watermark;
    tail_damaged_ = true;
    return {};
  }

  // A stretch counts if something acknowledged lay there: between groups of one file, or where the
  // log says that there was more.
  void find_damaged_stretches() {
    std::map<log::FileId, uint64_t> kept_ends;
    for (const FoundGroup& group : verdict_.kept) {
      uint64_t& end = kept_ends[group.file->id];
      end = std::max(end, group.offset + group.length);
    }
    const log::Manifest& manifest = verdict_.manifest;
    for (const FileScan& scan : scans_) {
      const log::FileId id = scan.file->id;
      if (manifest.gone(id)) continue;
      uint64_t known_end = kept_ends.count(id) > 0 ? kept_ends[id] : 0;
      const bool lost = verdict_.lost_files.count(id) > 0;  // cut off, and that is accepted
      if (!lost) known_end = std::max(known_end, manifest.end_of(id).value_or(0));
      const uint64_t begin = manifest.begin_of(id).value_or(0);
      if (const auto at = missing_ends_.find(id); at != missing_ends_.end()) {
        known_end = std::max(known_end, at->second);
      }
      for (Stretch stretch : scan.stretches) {
        stretch.begin = std::max(stretch.begin, begin);
        if (stretch.begin >= stretch.end) continue;
        const bool acknowledged =
            stretch.begin < known_end || (tail_damaged_ && stretch.last && !manifest.gone(id));
        if (acknowledged) verdict_.damaged.push_back(stretch);
      }
      // What should be there and is zeros is no less lost.
      const uint64_t read_to = end_of(scan);
      if (std::max(read_to, begin) < known_end) {
        verdict_.damaged.push_back({scan.file, std::max(read_to, begin), known_end, true});
      }
    }
    if (!verdict_.damaged.empty() && verdict_.damaged_groups == 0) {
      verdict_.damaged_groups = verdict_.damaged.size();
    }
  }

  static uint64_t end_of(const FileScan& scan) {
    uint64_t end = scan.from;
    if (!scan.groups.empty()) end = scan.groups.back().offset + scan.groups.back().length;
    if (!scan.stretches.empty()) end = std::max(end, scan.stretches.back().end);
    return end;
  }

  const std::vector<FileScan> scans_;
  const Evidence& evidence_;
  GroupSequence expected_;
  Verdict verdict_;
  std::vector<FoundGroup> groups_;
  std::map<log::FileId, uint64_t> missing_ends_;  // where acknowledged groups ended, by file
  bool tail_damaged_ = false;
};

}  // namespace

Status missing_file(log::FileId file) {
  return fail(ENODATA, log::log_file_path(file) + " is missing" + kWhatToDo);
}

Result<Verdict> judge(std::vector<FileScan> scans, const Evidence& evidence) {
  return Judge(std::move(scans), evidence).run();
}

}  // namespace valfs::recovery
