// The decision table of recovery (engine/README.md): where the log ends, and what in it is damaged.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "engine/log/retired.h"
#include "engine/recovery/file_scan.h"

namespace valfs::recovery {

struct Verdict {
  log::GroupSequence end = 0;        // the last group of the log
  log::GroupSequence watermark = 0;  // everything up to it had been acknowledged
  std::vector<FoundGroup> kept;      // by sequence
  std::vector<Stretch> damaged;      // acknowledged bytes in which no group can be recognised
  uint64_t damaged_groups = 0;       // acknowledged, and missing or not whole
  uint64_t dropped_groups = 0;       // never acknowledged
  // Acknowledged groups whose log file is gone, where that was accepted.
  std::vector<log::Retired::Interval> lost;
  bool unreadable = false;
};

// What to do where a log file is missing.
enum class MissingFile { kRefuse, kAccept };

// `present` are the log files that are there, whatever is left in them. `first` is the first group
// the scans should hold; `durable` what the superblock vouches for. ENODATA, with the name of the
// file where it is known: a log file is missing, and that is not accepted.
Result<Verdict> judge(std::vector<FileScan> scans, log::GroupSequence first,
                      log::GroupSequence durable, const log::Retired& retired,
                      const std::set<log::FileId>& present,
                      MissingFile missing = MissingFile::kRefuse);

}  // namespace valfs::recovery
