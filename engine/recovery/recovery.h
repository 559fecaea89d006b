// Recovery: from what lies in the data directory to an index and a place to go on.
//
// It writes nothing but staged groups to where they were bound for. The caller raises the epoch,
// with the cuts found here, before anything else is written; recovery may be cut at any point and
// run again.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/log/log_writer.h"
#include "engine/log/superblock.h"
#include "engine/recovery/verdict.h"

namespace valfs::recovery {

// What happened to a blob since its bytes were last known to be durable.
struct BlobTail {
  bool synced = false;       // a BLOB_SYNC was seen
  uint64_t synced_size = 0;  // by that BLOB_SYNC
  // Written since: [begin, end), in order of time.
  std::vector<std::pair<uint64_t, uint64_t>> written;
};

struct Recovered {
  log::LogWriter::Start start;
  log::FileId next_file = 1;
  std::vector<log::Cut> cuts;
  std::vector<log::FileId> unused;        // log files without groups: to be removed
  std::vector<log::FileId> unrecognised;  // neither header nor group is in them
  log::GroupSequence newest_freed = 0;    // by the cleaner
  // Log files that are missing or cut off, or the last groups without a trace: what they held is
  // lost, and that was accepted.
  std::set<log::FileId> lost_files;
  bool lost_tail = false;
  bool lost_any() const { return lost_tail || !lost_files.empty(); }
  log::GroupSequence checkpoint_covers = 0;
  std::map<log::ObjectId, BlobTail> blobs;  // by inode
  // Where damage was found: parent and name as records of values remember them, by inode.
  std::map<log::ObjectId, std::pair<log::ObjectId, std::string>> name_hints;
  uint64_t groups = 0;          // replayed
  uint64_t records = 0;         // replayed
  uint64_t drained = 0;         // groups taken from staging slots
  uint64_t dropped_groups = 0;  // torn tail
  uint64_t damaged_groups = 0;
  uint64_t damaged_values = 0;
  uint64_t replayed_bytes = 0;
  uint64_t footers_used = 0;  // log files that had not to be read in full
  bool damaged = false;       // acknowledged bytes of the log are: records may be lost
  bool used_checkpoint = false;
  bool used_older_checkpoint = false;  // the newest one is damaged
  bool same_boot = false;              // the page cache of the last mount is still there
  std::vector<std::string> warnings;
  // Below quarantine/: where this mount puts what it must not remove. Set by the mount.
  std::string quarantine;
};

// The staging memory of a volume.
std::string staging_name(const log::VolumeId& volume);

struct RecoverOptions {
  MissingFile missing = MissingFile::kRefuse;
  bool by_footers = true;  // else every payload is read, even where a footer would spare it
  std::function<void(const Verdict&)> on_verdict;  // sees what was found before it is replayed
};

Result<Recovered> recover(storage::Storage& storage, const log::Superblock& superblock,
                          log::LogFiles& files, index::Index& index,
                          const RecoverOptions& options = {});

}  // namespace valfs::recovery
