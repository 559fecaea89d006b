// What a log file holds, found by reading it: groups, and stretches where none is.
#pragma once

#include <functional>
#include <vector>

#include "engine/log/group.h"
#include "engine/log/log_files.h"

namespace valfs::recovery {

struct FoundGroup {
  log::LogFileRef file;
  uint64_t offset = 0;
  uint64_t length = 0;  // padding included
  log::GroupHeader header;
  bool whole = false;  // all records are there and match their CRCs
  log::ObjectId highest_object = 0;
};

// Bytes that are neither a group nor zeros.
struct Stretch {
  log::LogFileRef file;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct FileScan {
  std::vector<FoundGroup> groups;  // in order of place
  std::vector<Stretch> stretches;  // in order of place
  bool unreadable = false;         // the disk gave EIO somewhere
  bool stopped = false;            // by the visitor
  std::vector<std::byte> retired;  // body of the youngest RETIRED record
  log::RecordSequence retired_sequence = 0;
};

// Called in order of place while a file is scanned; false ends the scan. The contents of a group
// that is cut off by the end of the file are empty; views are good during the call.
struct ScanVisitor {
  std::function<bool(const FoundGroup&, const log::GroupContents&)> group;
  std::function<bool(const Stretch&)> stretch;
};

// Opens wal/…/<id>. Takes the epoch from the header, or, where that is damaged, from the groups.
// Nothing if the file holds neither (it was being prepared).
Result<log::LogFileRef> open_log_file(storage::Storage& storage, const log::VolumeId& volume,
                                      log::FileId id);

// The ids of all log files, rising.
Result<std::vector<log::FileId>> list_log_files(storage::Storage& storage);

// Reads the file from `from` up to `to`.
FileScan scan_file(const log::LogFileRef& file, const log::Salt& salt, uint64_t from, uint64_t to,
                   const ScanVisitor& visitor = {});

// The bytes of a stretch of a file; blocks that the disk cannot read come as zeros.
std::vector<std::byte> read_stretch(storage::File& file, uint64_t begin, uint64_t end,
                                    bool& unreadable);

}  // namespace valfs::recovery
