// A group in memory: how it is closed, and how it is read back.
#pragma once

#include <functional>
#include <vector>

#include "engine/log/record.h"

namespace valfs::log {

// What a group's header says beyond its own contents.
struct GroupPlace {
  Salt salt;
  uint64_t offset = 0;  // of the group in its log file
  GroupSequence sequence = 0;
  Stream stream = Stream::kUser;
  uint64_t previous_end = 0;  // packed Position
  uint32_t previous_crc = 0;
};

// Collects what the header and the directory need while records are appended.
class GroupSummary {
 public:
  void add(const Record& record, uint32_t record_crc, uint32_t offset_in_group);
  uint64_t directory_bytes() const { return directory_.size() * sizeof(DirectoryEntry); }
  uint32_t record_count() const { return static_cast<uint32_t>(directory_.size()); }
  const std::vector<DirectoryEntry>& directory() const { return directory_; }
  uint32_t digest() const { return digest_; }
  void clear();

 private:
  std::vector<DirectoryEntry> directory_;
  uint32_t digest_ = 0;
};

// Bytes that a group with so many records in `end` bytes (header included) takes on the disk.
uint64_t group_length(uint64_t end, uint64_t record_count);

// Writes header, directory and padding around the records that lie in [sizeof(GroupHeader), end) of
// `image`; returns the header. The image must have room for group_length().
GroupHeader seal_group(std::byte* image, uint64_t end, const GroupSummary& summary,
                       const GroupPlace& place, GroupSequence watermark, RecordSequence next_record,
                       ObjectId next_object);

// The header at `offset` of a log file, if it is one that belongs there.
std::optional<GroupHeader> decode_group_header(std::span<const std::byte> bytes, const Salt& salt,
                                               uint64_t offset);

// What a group is found to hold.
struct GroupContents {
  struct Entry {
    uint32_t offset = 0;  // from the group's start
    FoundRecord found;    // views into the image
    bool payload_good = false;
  };
  std::vector<Entry> records;
  std::vector<DirectoryEntry> lost;  // listed by the directory, and not found
  bool directory_good = false;
  bool whole = false;  // everything the header promises is there and right
};

// Which payloads are compared with their CRCs, and may be missing from the image if not.
enum class Payloads {
  kChecked,  // all
  kSpared,   // those below kSkippedPayload: a footer has spared the others
  kTrusted,  // none: an earlier look has
};

// Reads the records of a group whose header is good. Records behind a damaged one are found again.
GroupContents read_group(std::span<const std::byte> image, const GroupHeader& header,
                         const Salt& salt, uint64_t offset, Payloads payloads = Payloads::kChecked);

// Finds the records in a stretch of a log file that has no good group header.
std::vector<GroupContents::Entry> find_records(std::span<const std::byte> bytes, const Salt& salt,
                                               uint64_t offset);

}  // namespace valfs::log
