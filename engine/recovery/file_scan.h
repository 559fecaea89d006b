// What a log file holds, found by reading it: groups, and stretches where none is.
#pragma once

#include <functional>
#include <optional>
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
  // Large payloads that nobody need read (again): checked by the scan, or spared by a footer.
  std::vector<log::Gap> gaps;
  log::ObjectId highest_object = 0;
  // Its records: how many of a kind, and whether each is younger than the one before it (which the
  // cleaner's copies are not).
  uint64_t inodes = 0;
  uint64_t names = 0;
  log::RecordSequence first_record = 0;  // 0: it has none
  log::RecordSequence youngest_record = 0;
  bool rising = false;
};

// Bytes in which no group can be recognised: all between two groups, and behind the last one what
// is not zeros at the end.
struct Stretch {
  log::LogFileRef file;
  uint64_t begin = 0;
  uint64_t end = 0;
  bool last = false;  // no group follows in the file
};

// A MANIFEST record.
struct FoundManifest {
  log::GroupSequence group = 0;
  uint64_t offset = 0;
  uint32_t length = 0;
  bool good = false;  // else its group is known to have held one that cannot be read
};

struct FileScan {
  log::LogFileRef file;
  uint64_t from = 0;                     // where it begins
  std::vector<FoundGroup> groups;        // in order of place
  std::vector<Stretch> stretches;        // in order of place
  std::vector<FoundManifest> manifests;  // in order of place
  bool unreadable = false;               // the disk gave EIO somewhere
  bool stopped = false;                  // by the visitor
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

// The same without reading large payloads, as the file's footer allows. Nothing if a group is not
// where, or what, the footer says.
std::optional<FileScan> scan_by_footer(const log::LogFileRef& file, const log::Salt& salt,
                                       const log::Footer& footer, uint64_t from);

// The bytes of a group, but for those of its gaps, which are not set.
void read_image(const FoundGroup& group, std::vector<std::byte>& image, bool& unreadable);

// Reads what scan_file() has found.
Result<log::Manifest> read_manifest(const FileScan& scan, const log::Salt& salt,
                                    const FoundManifest& found);

// True if every byte of the file is there and zero.
bool is_all_zeros(storage::File& file, uint64_t begin, uint64_t end);

// Where the first block of a stretch lies that the disk cannot read.
std::optional<uint64_t> first_unreadable(storage::File& file, uint64_t begin, uint64_t end);

// The bytes of a stretch of a file; blocks that the disk cannot read come as zeros.
std::vector<std::byte> read_stretch(storage::File& file, uint64_t begin, uint64_t end,
                                    bool& unreadable);

}  // namespace valfs::recovery
