// A whole check of a volume that nobody has mounted (fsck). It changes nothing: recovery runs on a
// DryStorage.
//
//   superblock ─► log files ─► recovery of the whole log ─► recovery as a mount does it, compared
//   ─► names and inodes ─► live bytes ─► values ─► blobs ─► what else lies in the directory
#pragma once

#include <memory>
#include <set>
#include <vector>

#include "engine/inspect/dry_storage.h"
#include "engine/inspect/finding.h"
#include "engine/inspect/log_reader.h"
#include "engine/recovery/recovery.h"

namespace valfs::inspect {

// What repair needs to know; filled while the check goes on.
struct Diagnosis {
  std::optional<log::Superblock> superblock;  // the newest whole copy, or what the log says of it
  bool superblock_bad = false;                // a copy is not whole
  bool superblock_lost = false;               // none is: `superblock` was made from the log
  struct BadHeader {
    log::FileId id = 0;
    log::Epoch epoch = 0;
    uint64_t size = 0;
  };
  std::vector<BadHeader> headers;  // of log files
  struct BadFooter {
    std::string path;
    uint64_t begin = 0;
  };
  std::vector<BadFooter> footers;            // that do not say what there is
  std::vector<std::string> unreadable_logs;  // neither header nor group, but not empty either
  std::vector<std::string> checkpoints;      // damaged ones
  bool checkpoint_missing = false;           // the superblock names one that cannot be used
  bool log_files_missing = false;
  bool tree_broken = false;  // names and inodes do not agree
  // Whose records are damaged, although a checkpoint still knows them.
  std::vector<log::ObjectId> faded_inodes;
  std::vector<std::pair<log::ObjectId, std::string>> faded_names;  // parent, name
  std::vector<std::string> strays;  // files that nothing leads to: blobs, in gc/
  uint64_t errors = 0;
  uint64_t notes = 0;
  // Numbers for the summary.
  uint64_t log_files = 0;
  uint64_t log_bytes = 0;
  uint64_t groups = 0;
  uint64_t records = 0;
  uint64_t inodes = 0;
  uint64_t names = 0;
  uint64_t blobs = 0;
  uint64_t blob_bytes = 0;
};

// Fails only if the check itself cannot go on: ENOENT where there is no volume at all, EIO where a
// directory cannot be listed. `storage` must be locked by the caller.
Result<Diagnosis> check_volume(storage::Storage& storage, const Observer& observer);

// Scrubs a volume that nobody has mounted. Errors as above; ENODATA: a log file is missing.
class Scrubber;
struct ScrubProgress;
Result<ScrubProgress> scrub_volume(storage::Storage& storage, Scrubber& scrubber, uint64_t rate);

// --- its steps, for repair, scrub and tests ---

// An index as recovery makes it, and the log files it points into.
struct DryVolume {
  DryVolume(storage::Storage& storage, const log::VolumeId& volume)
      : files(storage, volume), index(std::make_unique<index::Index>()) {}
  log::LogFiles files;
  std::unique_ptr<index::Index> index;
  recovery::Recovered recovered;
  recovery::Verdict verdict;
};
// Runs recovery. `storage` should be a DryStorage.
Result<std::unique_ptr<DryVolume>> recover_dry(storage::Storage& storage,
                                               const log::Superblock& superblock,
                                               recovery::MissingFile missing);

// What the log says of a superblock that is lost. ENOENT: there is no log file that says anything.
Result<log::Superblock> rebuild_superblock(storage::Storage& storage);

// Values, names and attributes whose records do not lie in a group that was found whole: each is
// read. Notes in `diagnosis` what only the index still knows.
void check_values(const DryVolume& volume, const recovery::Verdict& log, Diagnosis& diagnosis,
                  const std::function<void(Finding)>& add);

// The youngest manifest against the log files that are there.
void check_manifest(const DryVolume& volume, const std::function<void(Finding)>& add);

// Names, inodes, link counts.
void check_tree(const index::Index& index, const std::function<void(Finding)>& add);
// Inodes that no path from the root leads to, the topmost of each such tree (or, of a loop, one).
std::vector<log::ObjectId> find_unreachable(const index::Index& index);
// How many links an inode should have: its names, or 2 + its directories.
uint32_t links_wanted(const index::Index& index, const index::Inode& inode);
// What live bytes by log file should be, added to `live`.
void recount_live(const index::Index& index, index::LiveBytes& live);

// A blob, chunk by chunk, against its sums. `paced` is told how many bytes were read; false ends
// the check.
void check_blob(storage::Storage& storage, const DryVolume& volume, const index::Inode& inode,
                const std::function<bool(uint64_t bytes)>& paced,
                const std::function<void(Finding)>& add);

// "wal/00/00/00000001" for a record, and where in it.
void locate(Finding& finding, log::Position record);
// Every file below a directory, as a path; what cannot be listed is left out.
std::vector<std::string> list_tree(storage::Storage& storage, const std::string& directory);

}  // namespace valfs::inspect
