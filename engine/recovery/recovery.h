// Recovery: from what lies in the data directory to an index and a place to go on.
//
// It writes nothing but staged groups to where they were bound for. The caller raises the epoch,
// with the cuts found here, before anything else is written; recovery may be cut at any point and
// run again.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "engine/log/log_writer.h"
#include "engine/log/retired.h"
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
  std::vector<log::FileId> unused;  // log files without groups: to be removed
  log::Retired retired;
  // Groups whose log file is gone, which was accepted; `retired` covers them.
  std::vector<log::Retired::Interval> lost;
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
  bool used_checkpoint = false;
  bool same_boot = false;  // the page cache of the last mount is still there
  std::vector<std::string> warnings;
};

// The staging memory of a volume.
std::string staging_name(const log::VolumeId& volume);

struct RecoverOptions {
  MissingFile missing = MissingFile::kRefuse;
  std::function<void(const Verdict&)> on_verdict;  // sees what was found before it is replayed
};

Result<Recovered> recover(storage::Storage& storage, const log::Superblock& superblock,
                          log::LogFiles& files, index::Index& index,
                          const RecoverOptions& options = {});

}  // namespace valfs::recovery
