// The decision table of recovery (engine/README.md): where the log ends, and what in it is damaged.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/recovery/file_scan.h"

namespace valfs::recovery {

struct Verdict {
  log::GroupSequence end = 0;        // the last group of the log
  log::GroupSequence watermark = 0;  // everything up to it had been acknowledged
  std::vector<FoundGroup> kept;      // by sequence, each once
  std::vector<Stretch> damaged;      // acknowledged bytes in which no group can be recognised
  uint64_t damaged_groups = 0;       // acknowledged, and missing or not whole
  uint64_t dropped_groups = 0;       // never acknowledged
  log::Manifest manifest;            // the youngest of the log
  // Log files that are missing or have been cut off, where that was accepted.
  std::set<log::FileId> lost_files;
  bool lost_tail = false;  // the same of the last groups, whose file nothing names
  bool unreadable = false;
};

// What to do where a log file is missing.
enum class MissingFile { kRefuse, kAccept };

// What is known besides the scans.
struct Evidence {
  log::GroupSequence first = 1;    // the first group that the scans should hold
  log::GroupSequence durable = 0;  // what the superblock vouches for
  log::Manifest manifest;          // the youngest that can be read
  // The youngest up to a group: one behind the end of the log counts for nothing.
  std::function<log::Manifest(log::GroupSequence)> manifest_up_to;
  // A younger one cannot be read: what is missing may have been freed.
  bool manifest_lost = false;
  std::map<log::FileId, uint64_t> present;  // sizes of the log files that are there
  std::set<log::FileId> freed;              // those of which the superblock says that they are gone
  MissingFile missing = MissingFile::kRefuse;
};

// ENODATA: a log file is missing, and what to do about it.
Status missing_file(log::FileId file);

// ENODATA, with the name of the file where it is known: a log file is missing or has been cut off,
// and that is not accepted.
Result<Verdict> judge(std::vector<FileScan> scans, const Evidence& evidence);

}  // namespace valfs::recovery
