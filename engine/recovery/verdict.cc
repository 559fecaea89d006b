#include "engine/recovery/verdict.h"

#include <algorithm>
#include <set>

namespace valfs::recovery {
namespace {

using log::GroupSequence;

class Judge {
 public:
  Judge(std::vector<FileScan> scans, GroupSequence first, GroupSequence durable,
        const log::Retired& retired, const std::set<log::FileId>& present, MissingFile missing)
      : scans_(std::move(scans)),
        expected_(first),
        retired_(retired),
        present_(present),
        missing_(missing) {
    verdict_.watermark = durable;
    verdict_.end = first == 0 ? 0 : first - 1;
    for (const FileScan& scan : scans_) {
      verdict_.unreadable |= scan.unreadable;
      for (const FoundGroup& group : scan.groups) {
        verdict_.watermark = std::max(verdict_.watermark, group.header.watermark);
        if (group.header.sequence >= first) groups_.push_back(group);
      }
    }
    std::sort(groups_.begin(), groups_.end(), [](const FoundGroup& a, const FoundGroup& b) {
      return a.header.sequence < b.header.sequence;
    });
  }

  Result<Verdict> run() {
    size_t next = 0;
    bool open = true;  // the end of the log has not been met
    while (open && next < groups_.size()) {
      const FoundGroup& group = groups_[next];
      VALFS_TRY(meet_missing(group, open));
      if (!open) break;
      if (!group.whole && group.header.sequence > verdict_.watermark) break;
      if (!group.whole) verdict_.damaged_groups++;
      verdict_.kept.push_back(group);
      verdict_.end = group.header.sequence;
      expected_ = group.header.sequence + 1;
      next++;
    }
    verdict_.dropped_groups = groups_.size() - next;
    VALFS_TRY(meet_tail());
    find_damaged_stretches();
    return std::move(verdict_);
  }

 private:
  // Groups that should lie before `group` and do not.
  Status meet_missing(const FoundGroup& group, bool& open) {
    expected_ = retired_.skip(expected_);
    const GroupSequence missing = expected_;
    if (missing >= group.header.sequence) return {};
    if (missing > verdict_.watermark) {
      open = false;  // unacknowledged groups that completed out of order
      return {};
    }
    const log::Position before{group.header.previous_end};
    if (group.header.previous_end != 0 && present_.count(before.file()) == 0) {
      return lost_file(missing, group.header.sequence - 1, before.file());
    }
    verdict_.damaged_groups += group.header.sequence - missing;
    return {};
  }

  // Acknowledged groups behind the last one that was found.
  Status meet_tail() {
    expected_ = retired_.skip(expected_);
    if (expected_ > verdict_.watermark) return {};
    const bool trace = std::any_of(scans_.begin(), scans_.end(), [this](const FileScan& scan) {
      return std::any_of(scan.stretches.begin(), scan.stretches.end(), [this](const Stretch& s) {
        return verdict_.kept.empty() || s.file->id >= verdict_.kept.back().file->id;
      });
    });
    if (!trace) {
      VALFS_TRY(lost_file(expected_, verdict_.watermark, 0));
      verdict_.end = verdict_.watermark;
      return {};
    }
    verdict_.damaged_groups += verdict_.watermark - expected_ + 1;
    verdict_.end = verdict_.watermark;
    tail_damaged_ = true;
    return {};
  }

  Status lost_file(GroupSequence first, GroupSequence last, log::FileId file) {
    if (missing_ == MissingFile::kAccept) {
      verdict_.lost.push_back({first, last});
      return {};
    }
    return fail(ENODATA, "groups " + std::to_string(first) + " to " + std::to_string(last) +
                             " of the log are missing" +
                             (file != 0 ? ": " + log::log_file_path(file) + " is gone" : "") +
                             "; put the log file back from a copy of the data directory, or, if " +
                             "there is none, let `valfs fsck --repair` accept the loss");
  }

  // A stretch counts if an acknowledged group lies behind it, or if the tail itself is damaged.
  void find_damaged_stretches() {
    if (verdict_.kept.empty() && !tail_damaged_) return;
    const log::FileId last_file = verdict_.kept.empty() ? 0 : verdict_.kept.back().file->id;
    const uint64_t last_offset = verdict_.kept.empty() ? 0 : verdict_.kept.back().offset;
    for (const FileScan& scan : scans_) {
      for (const Stretch& stretch : scan.stretches) {
        const bool before_last = stretch.file->id < last_file ||
                                 (stretch.file->id == last_file && stretch.begin < last_offset);
        if (before_last || tail_damaged_) verdict_.damaged.push_back(stretch);
      }
    }
  }

  const std::vector<FileScan> scans_;
  GroupSequence expected_;
  const log::Retired& retired_;
  const std::set<log::FileId>& present_;
  const MissingFile missing_;
  Verdict verdict_;
  std::vector<FoundGroup> groups_;
  bool tail_damaged_ = false;
};

}  // namespace

Result<Verdict> judge(std::vector<FileScan> scans, GroupSequence first, GroupSequence durable,
                      const log::Retired& retired, const std::set<log::FileId>& present,
                      MissingFile missing) {
  return Judge(std::move(scans), first, durable, retired, present, missing).run();
}

}  // namespace valfs::recovery
