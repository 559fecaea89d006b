#include "engine/inspect/check.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "engine/base/crc32c.h"
#include "engine/blob/blobs.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/inspect/compare.h"

namespace valfs::inspect {
namespace {

using recovery::FoundGroup;
using recovery::MissingFile;
using Severity = Finding::Severity;

constexpr const char* kNextRepair = "let `valfs fsck --repair` mend it";
constexpr const char* kNextRestore =
    "put the log file back from a copy of the data directory, or let `valfs fsck --repair` accept "
    "the loss";

class Checker {
 public:
  Checker(storage::Storage& storage, const Observer& observer)
      : dry_(storage), observer_(observer) {
    dry_.on_read = [this](uint64_t bytes) { advance(bytes); };
  }

  Result<Diagnosis> run() {
    VALFS_TRY(check_superblock());
    VALFS_TRY(check_log_files());
    VALFS_TRY(recover_whole());
    VALFS_TRY(recover_as_a_mount());
    report_log_damage();
    check_manifest(*whole_, [this](Finding finding) { add(std::move(finding)); });
    check_footers();
    check_checkpoints();
    check_tree(index(), [this](Finding finding) {
      result_.tree_broken |= finding.repairable;
      add(std::move(finding));
    });
    check_live_bytes();
    check_values(*mounted_, whole_->verdict, result_,
                 [this](Finding finding) { add(std::move(finding)); });
    check_blobs();
    check_rest();
    return std::move(result_);
  }

 private:
  const index::Index& index() const { return *mounted_->index; }

  // --- telling ---

  void begin(const char* phase, uint64_t total) {
    progress_ = {phase, 0, total};
    observer_.progress(progress_);
  }
  void advance(uint64_t bytes) {
    constexpr uint64_t kStep = 4 << 20;
    const uint64_t before = progress_.done;
    progress_.done = std::min(before + bytes, std::max(progress_.total, before));
    if (before / kStep != progress_.done / kStep) observer_.progress(progress_);
  }

  void add(Finding finding) {
    if (finding.inode != 0 && finding.path.empty() && mounted_) {
      finding.path = index().path_of(finding.inode);
    }
    (finding.severity == Severity::kError ? result_.errors : result_.notes)++;
    observer_.found(finding);
  }
  void error(std::string kind, std::string file, std::string what, std::string next,
             bool repairable, std::optional<uint64_t> offset = {}) {
    Finding finding;
    finding.kind = std::move(kind);
    finding.file = std::move(file);
    finding.what = std::move(what);
    finding.next = std::move(next);
    finding.repairable = repairable;
    finding.offset = offset;
    add(std::move(finding));
  }
  void note(std::string kind, std::string file, std::string what, bool repairable = false) {
    Finding finding;
    finding.severity = Severity::kNote;
    finding.kind = std::move(kind);
    finding.file = std::move(file);
    finding.what = std::move(what);
    finding.repairable = repairable;
    add(std::move(finding));
  }

  // --- superblock ---

  Status check_superblock() {
    const auto file = dry_.open(log::kSuperblockPath, storage::OpenMode::kRead);
    if (!file && file.error().code != ENOENT) return tl::unexpected(file.error());
    log::SuperblockCopies found;
    if (file) found = log::read_superblock_copies(**file);
    result_.superblock = found.newest();
    if (!result_.superblock) return replace_superblock(file.has_value());
    const log::Superblock& newest = *result_.superblock;
    if (newest.is_from_a_newer_version()) {
      return fail(EINVAL, "super: this volume needs a newer valfs (format " +
                              std::to_string(newest.version) + ")");
    }
    for (size_t i = 0; i < found.copies.size(); i++) {
      const uint64_t offset = i * log::kBlock;
      if (!found.copies[i]) {
        result_.superblock_bad = true;
        error("superblock", log::kSuperblockPath,
              "copy " + std::to_string(i + 1) + " of the superblock is damaged", kNextRepair, true,
              offset);
      } else if (found.copies[i]->generation != newest.generation) {
        note("superblock", log::kSuperblockPath,
             "copy " + std::to_string(i + 1) +
                 " of the superblock is older than the others: writing it was cut short");
      }
    }
    if (newest.clean == 0) {
      note("unclean", "",
           "the volume was not unmounted: the next mount recovers what is in its log");
    }
    return {};
  }

  Status replace_superblock(bool there) {
    auto rebuilt = rebuild_superblock(dry_);
    if (!rebuilt) {
      if (rebuilt.error().code != ENOENT) return tl::unexpected(rebuilt.error());
      return fail(ENOENT, there ? "super: not a superblock, and there is no log to rebuild it from"
                                : "there is no valfs volume in this directory");
    }
    result_.superblock = *rebuilt;
    result_.superblock_bad = result_.superblock_lost = true;
    error("superblock", log::kSuperblockPath,
          there ? "every copy of the superblock is damaged" : "the superblock is missing",
          "let `valfs fsck --repair` rebuild it from the log, or put it back from a copy of the "
          "data directory",
          true);
    return {};
  }

  // --- log files ---

  Status check_log_files() {
    VALFS_ASSIGN(const LogReader reader, LogReader::open(dry_));
    const uint32_t volume = result_.superblock->volume.salt();
    for (const LogReader::Entry& entry : reader.files()) {
      result_.log_files++;
      result_.log_bytes += entry.end;
      check_log_file(entry, volume);
    }
    for (const LogReader::Entry& entry : reader.unidentified()) {
      result_.log_files++;
      result_.log_bytes += entry.end;
      if (recovery::is_all_zeros(*entry.file->file, 0, entry.end)) {
        note("log-file", entry.path, "an empty log file: the next mount removes it");
        continue;
      }
      result_.unreadable_logs.push_back(entry.path);
      error("log-file", entry.path, "neither the header nor any record of this log file is whole",
            "put it back from a copy of the data directory, or let `valfs fsck --repair` move it "
            "aside",
            true);
    }
    return {};
  }

  void check_log_file(const LogReader::Entry& entry, uint32_t volume) {
    if (entry.identity.salt.volume != volume) {
      result_.unreadable_logs.push_back(entry.path);
      return error("log-file", entry.path, "this log file belongs to another volume",
                   "let `valfs fsck --repair` move it aside", true);
    }
    if (log::log_file_path(entry.file->id) != entry.path) {
      return error("log-file", entry.path,
                   "this is log file " + log::log_file_path(entry.file->id) + " by its contents",
                   "rename it to that, unless there is one", false);
    }
    if (entry.identity.header) return;
    result_.headers.push_back({entry.file->id, entry.file->epoch, entry.end});
    error("log-header", entry.path,
          std::string("the header of the log file is damaged; its epoch is known from ") +
              (entry.identity.guessed ? "other files" : "its groups"),
          kNextRepair, true, 0);
  }

  // --- recovery ---

  Result<std::unique_ptr<DryVolume>> recover(const log::Superblock& superblock) {
    auto volume = recover_dry(dry_, superblock, MissingFile::kRefuse);
    if (volume || volume.error().code != ENODATA) return volume;
    if (!result_.log_files_missing) {
      error("log-missing", "", volume.error().what, kNextRestore, true);
    }
    result_.log_files_missing = true;
    return recover_dry(dry_, superblock, MissingFile::kAccept);
  }

  Status recover_whole() {
    begin("log", result_.log_bytes * 2);  // once to find the groups, once to replay them
    log::Superblock without = *result_.superblock;
    without.checkpoint = 0;
    VALFS_ASSIGN(whole_, recover(without));
    result_.groups = whole_->recovered.groups;
    result_.records = whole_->recovered.records;
    const recovery::Recovered& recovered = whole_->recovered;
    if (recovered.drained > 0) {
      note("staging", "",
           std::to_string(recovered.drained) +
               " groups wait in staging slots: the next mount writes them");
    }
    if (whole_->verdict.dropped_groups > 0) {
      note("torn-tail", "",
           std::to_string(whole_->verdict.dropped_groups) +
               " groups at the end were never acknowledged: the next mount "
               "leaves them out");
    }
    return {};
  }

  Status recover_as_a_mount() {
    mounted_ = whole_.get();
    const uint64_t generation = result_.superblock->checkpoint;
    if (generation == 0) return {};
    begin("checkpoint", result_.log_bytes);
    VALFS_ASSIGN(from_checkpoint_, recover(*result_.superblock));
    if (from_checkpoint_->recovered.used_checkpoint) {
      mounted_ = from_checkpoint_.get();
      compare_indexes();
      if (!from_checkpoint_->recovered.used_older_checkpoint) return {};
    }
    index::Index scratch;
    const auto moment =
        checkpoint::read_checkpoint(dry_, result_.superblock->volume, generation, scratch);
    if (moment) {  // outrun by the cleaner: the log says all
      note("checkpoint", checkpoint::checkpoint_path(generation),
           "the checkpoint is older than what the cleaner has freed: mounts read the whole log");
    } else {
      result_.checkpoint_missing = true;
      error("checkpoint", checkpoint::checkpoint_path(generation),
            moment.error().code == ENOENT ? "the checkpoint that the superblock names is missing"
                                          : "the checkpoint is damaged: " + moment.error().what,
            "mounts take an older one, or read the whole log, meanwhile; let `valfs fsck --repair` "
            "write a new one",
            true);
    }
    return {};
  }

  void compare_indexes() {
    const bool damaged = whole_->verdict.damaged_groups > 0 || result_.log_files_missing ||
                         !whole_->verdict.damaged.empty();
    uint64_t differences = 0;
    compare(*from_checkpoint_, *whole_, [&](log::ObjectId id, const std::string& what) {
      differences++;
      if (damaged) return;
      Finding finding;
      finding.kind = "index";
      finding.inode = id;
      finding.what = "checkpoint and log disagree: " + what;
      finding.next = "keep a copy of the data directory and report this";
      add(std::move(finding));
    });
    if (damaged && differences > 0) {
      note("index", checkpoint::checkpoint_path(result_.superblock->checkpoint),
           "the checkpoint still knows " + std::to_string(differences) +
               " things that the damaged log does not");
    }
  }

  // --- damage of the log ---

  bool is_live(log::Position record, const log::DirectoryEntry& entry) const {
    bool live = false;
    const auto inode = index().find(entry.id);
    if (inode != nullptr) {
      live |= inode->base == record;
      for (const index::Extent& extent : inode->extents().all()) live |= extent.record == record;
    }
    if (entry.type == log::RecordType::kName) live = true;  // by cookie only: not looked for
    return live;
  }

  void report_damage(const Damage& damage) {
    const auto place = log::Position::at(damage.file, damage.begin);
    Finding finding;
    finding.kind = damage.kind == Damage::Kind::kPayload ? "payload" : "log-damage";
    finding.file = log::log_file_path(damage.file);
    finding.offset = damage.begin;
    finding.length = damage.end - damage.begin;
    finding.what = damage.text();
    if (damage.group != 0) finding.what += " (group " + std::to_string(damage.group) + ")";
    finding.next = "its values are named below; nothing else is touched by it";
    if (damage.lost) {
      if (index().find(damage.lost->id) != nullptr) finding.inode = damage.lost->id;
      const bool dead = damage.kind == Damage::Kind::kPayload && !is_live(place, *damage.lost);
      if (dead) finding.severity = Severity::kNote;
      if (dead) finding.what += "; nothing current was in it";
    }
    add(std::move(finding));
  }

  void report_log_damage() {
    for (const FoundGroup& group : whole_->verdict.kept) {
      if (group.whole) continue;
      bool unreadable = false;
      const auto image = recovery::read_stretch(*group.file->file, group.offset,
                                                group.offset + group.length, unreadable);
      const auto contents =
          log::read_group(image, group.header, whole_->files.salt(*group.file), group.offset);
      for (const Damage& damage : damage_of(group, contents)) report_damage(damage);
    }
    for (const recovery::Stretch& stretch : whole_->verdict.damaged) {
      Damage damage;
      damage.kind = Damage::Kind::kStretch;
      damage.file = stretch.file->id;
      damage.begin = stretch.begin;
      damage.end = stretch.end;
      report_damage(damage);
    }
    if (whole_->verdict.unreadable) {
      error("log-damage", "", "the disk cannot read some blocks of the log",
            "copy the data directory to another disk", false);
    }
  }

  // --- footers ---

  void check_footers() {
    for (const log::LogFileRef& file : whole_->files.all()) {
      LogReader reader;
      reader.add(file, whole_->files.salt(*file), file->begin, file->size);
      LogReader::Visitor visitor;
      visitor.footer = [&](const FooterPlace& place) { check_footer(place); };
      (void)reader.scan(file->id, visitor);  // it was just added
    }
  }

  void check_footer(const FooterPlace& place) {
    if (place.right) return;
    const std::string path = log::log_file_path(place.file);
    if (!place.footer && result_.superblock->clean == 0) {
      return note("footer", path, "an unfinished footer: the next mount drops it");
    }
    result_.footers.push_back({path, place.begin});
    error("footer", path,
          place.footer ? "the footer does not say what there is in the log file"
                       : "the footer of the log file is damaged: nothing is lost by that",
          "let `valfs fsck --repair` take it away; without it, the file is read in full", true,
          place.begin);
  }

  // --- checkpoints besides the one in use ---

  void check_checkpoints() {
    const uint64_t current = result_.superblock->checkpoint;
    for (const std::string& name : dry_.list("checkpoint").value_or(std::vector<std::string>{})) {
      const std::string path = "checkpoint/" + name;
      uint64_t generation = 0;
      const auto parsed = std::from_chars(name.data(), name.data() + name.size(), generation, 16);
      if (parsed.ec != std::errc() || checkpoint::checkpoint_path(generation) != path) {
        note("checkpoint", path, "no checkpoint by its name: the next checkpoint removes it");
        continue;
      }
      const auto good =
          checkpoint::check_checkpoint(dry_, generation, [](uint64_t) { return true; });
      if (good) continue;
      if (generation > current) {
        note("checkpoint", path, "an unfinished checkpoint: the next one replaces it");
        continue;
      }
      result_.checkpoints.push_back(path);
      if (generation == current && result_.checkpoint_missing) continue;  // said above
      error("checkpoint", path, "a checkpoint is damaged: " + good.error().what,
            "let `valfs fsck --repair` move it aside", true);
    }
  }

  // --- live bytes ---

  void check_live_bytes() {
    result_.inodes = index().inode_count();
    result_.names = index().name_count();
    index::LiveBytes counted;
    recount_live(index(), counted);
    for (const log::LogFileRef& file : mounted_->files.all()) {
      const uint64_t noted = index().live().of(file->id);
      const std::string path = log::log_file_path(file->id);
      if (noted != counted.of(file->id)) {
        error("live-bytes", path,
              std::to_string(noted) + " live bytes are noted, " +
                  std::to_string(counted.of(file->id)) + " counted",
              "keep a copy of the data directory and report this", false);
      }
      const uint64_t used = file->end - file->begin;
      if (counted.of(file->id) > used) {
        error("live-bytes", path,
              std::to_string(counted.of(file->id)) + " bytes are live of only " +
                  std::to_string(used) + " in use",
              "keep a copy of the data directory and report this", false);
      }
    }
  }

  // --- blobs ---

  void check_blobs() {
    std::set<log::ObjectId> named;
    std::vector<index::Inode> inodes;
    index().for_each_inode([&](const index::Inode& inode) {
      if (inode.attributes.blob == 0 || inode.sums) return;
      named.insert(inode.attributes.blob);
      inodes.push_back(inode);
      result_.blob_bytes += inode.attributes.size;
    });
    result_.blobs = inodes.size();
    begin("blobs", result_.blob_bytes);
    for (const index::Inode& inode : inodes) {
      check_blob(
          dry_, *mounted_, inode, [](uint64_t) { return true; },
          [this](Finding finding) { add(std::move(finding)); });
    }
    for (const std::string& path : list_tree(dry_, "bin")) {
      const std::string name = path.substr(path.rfind('/') + 1);
      log::ObjectId id = 0;
      const auto parsed = std::from_chars(name.data(), name.data() + name.size(), id, 16);
      const bool ours = parsed.ec == std::errc() && blob::blob_path(id) == path;
      if (ours && named.count(id) > 0) continue;
      if (!ours && name.ends_with(".lost")) {
        note("quarantine", path,
             "a large value that nothing led to, set aside by a mount that found damage; `valfs "
             "salvage` reads it; delete it when nobody needs it any more");
        continue;
      }
      if (!ours) {
        note("foreign", path, "no blob by its name: it is left alone");
        continue;
      }
      result_.strays.push_back(path);
      const bool damaged = whole_->verdict.damaged_groups > 0 || result_.log_files_missing;
      if (damaged) {
        error(
            "blob-orphan", path,
            "no file leads to this blob, and the log is damaged: what named it may be lost",
            "let `valfs fsck --repair` move it to quarantine/; the next mount renames it to ….lost",
            true);
      } else {
        note("blob-orphan", path, "no file leads to this blob: the next mount removes it", true);
      }
    }
  }

  // --- what else there is ---

  void check_rest() {
    for (const std::string& path : list_tree(dry_, "gc")) {
      result_.strays.push_back(path);
      note("gc-leftover", path, "left over in the cleaner's directory", true);
    }
    static const std::set<std::string> kOwn{"lock", "staging", "super",      "super.new", "wal",
                                            "bin",  "gc",      "checkpoint", "lost+found"};
    for (const std::string& name : dry_.list("").value_or(std::vector<std::string>{})) {
      if (kOwn.count(name) > 0 || name.rfind("valfs.log", 0) == 0) continue;
      note(name == "quarantine" ? "quarantine" : "foreign", name,
           name == "quarantine"
               ? "what earlier repairs have moved aside; delete it when nobody needs it any more"
               : "not a file of this volume: it is left alone");
    }
  }

  DryStorage dry_;
  const Observer& observer_;
  Diagnosis result_;
  Progress progress_;
  std::unique_ptr<DryVolume> whole_;            // from the whole log
  std::unique_ptr<DryVolume> from_checkpoint_;  // as a mount does it
  const DryVolume* mounted_ = nullptr;          // what a mount would have
};

}  // namespace

Result<std::unique_ptr<DryVolume>> recover_dry(storage::Storage& storage,
                                               const log::Superblock& superblock,
                                               MissingFile missing) {
  auto volume = std::make_unique<DryVolume>(storage, superblock.volume);
  VALFS_ASSIGN(volume->recovered,
               recovery::recover(storage, superblock, volume->files, *volume->index,
                                 {.missing = missing,
                                  .by_footers = false,
                                  .on_verdict = [&](const recovery::Verdict& verdict) {
                                    volume->verdict = verdict;
                                  }}));
  return volume;
}

Result<Diagnosis> check_volume(storage::Storage& storage, const Observer& observer) {
  return Checker(storage, observer).run();
}

void locate(Finding& finding, log::Position record) {
  finding.file = log::log_file_path(record.file());
  finding.offset = record.offset();
}

std::vector<std::string> list_tree(storage::Storage& storage, const std::string& directory) {
  std::vector<std::string> paths;
  for (const std::string& name : storage.list(directory).value_or(std::vector<std::string>{})) {
    const std::string path = directory.empty() ? name : directory + "/" + name;
    if (!storage.list(path)) {
      paths.push_back(path);
      continue;
    }
    const auto below = list_tree(storage, path);
    paths.insert(paths.end(), below.begin(), below.end());
  }
  return paths;
}

}  // namespace valfs::inspect
