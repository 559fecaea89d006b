// The manifest: which log files there are, and which part of each counts. The cleaner writes one,
// durably, before it frees anything, so that recovery can tell what was freed from what is missing.
// Always whole: the youngest alone counts.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "engine/log/format.h"

namespace valfs::log {

struct ManifestEntry {
  FileId file = 0;
  uint32_t begin = 0;  // in blocks: what lies before was freed
  uint32_t end = 0;    // in blocks: the file holds groups up to here; 0: it is still written to
  uint32_t empty = 0;  // 1: all of it was freed, so after a crash the file may be gone
};
static_assert(sizeof(ManifestEntry) == 16 && std::is_trivially_copyable_v<ManifestEntry>);

// The entries in the payload of a MANIFEST record.
std::vector<ManifestEntry> entries_of(std::span<const std::byte> payload);

class Manifest {
 public:
  Manifest() = default;
  // Of a MANIFEST record. `group` is where it stands.
  Manifest(GroupSequence group, GroupSequence newest_freed, FileId newest_file,
           std::span<const std::byte> payload);
  Manifest(GroupSequence newest_freed, FileId newest_file, std::vector<ManifestEntry> entries);

  GroupSequence group() const { return group_; }  // 0: there is none
  // No freed group is younger. A checkpoint that covers less cannot be replayed from.
  GroupSequence newest_freed() const { return newest_freed_; }
  // Of younger files it knows nothing: groups older than itself may have been moved there after
  // they could not be written.
  FileId newest_file() const { return newest_file_; }
  const std::vector<ManifestEntry>& entries() const { return entries_; }  // by file

  // Where the counting part of a file begins; nothing if it was not there when this was written.
  std::optional<uint64_t> begin_of(FileId file) const;
  // Where it ends, if it had been left when this was written.
  std::optional<uint64_t> end_of(FileId file) const;
  // True if `file` can hold nothing that counts: it was freed, and is not younger than this.
  bool gone(FileId file) const;
  // True if bytes of `file` up to `end` were freed. Only for groups older than this manifest.
  bool freed(FileId file, uint64_t end) const;

 private:
  const ManifestEntry* find(FileId file) const;

  GroupSequence group_ = 0;
  GroupSequence newest_freed_ = 0;
  FileId newest_file_ = 0;
  std::vector<ManifestEntry> entries_;
};

}  // namespace valfs::log
