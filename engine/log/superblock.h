// The superblock: what has to be known before the log can be read.
#pragma once

#include <optional>
#include <string>

#include "engine/log/format.h"

namespace valfs::log {

// Where a log file ends although bytes follow: what lies behind was never acknowledged.
struct Cut {
  FileId file = 0;
  uint32_t reserved = 0;
  uint64_t offset = 0;
};

struct Superblock {
  static constexpr uint64_t kMagic = 0x31505553'46464c56;  // "VLFFSUP1"
  static constexpr uint32_t kMaxCuts = 128;
  static constexpr uint32_t kFreedKept = 64;
  // incompat: there are, or have been, compressed records in the log.
  static constexpr uint32_t kCompressedRecords = 1;

  uint64_t magic = kMagic;
  uint32_t version = kFormatVersion;
  uint32_t compat = 0;     // unknown bits: go on
  uint32_t ro_compat = 0;  // unknown bits: read only
  uint32_t incompat = 0;   // unknown bits: refuse
  uint64_t generation = 0;
  VolumeId volume;
  Epoch epoch = 0;     // of the last mount
  uint32_t clean = 1;  // it ended by unmounting
  std::array<char, 40> boot_id{};
  GroupSequence durable_group = 0;  // all groups up to it were durable when this was written
  uint64_t checkpoint = 0;          // generation of the newest one; 0: none
  RecordSequence next_record = 1;   // lower bounds; the log may know better
  ObjectId next_object = 0;
  FileId next_file = 1;
  uint32_t cut_count = 0;
  std::array<Cut, kMaxCuts> cuts{};
  // The log files freed last, a ring: should the manifest that says so be damaged, nobody takes
  // them for lost.
  uint32_t freed_count = 0;
  std::array<FileId, kFreedKept> freed{};
  uint32_t crc = 0;

  bool is_from_a_newer_version() const;
  std::optional<uint64_t> cut_of(FileId file) const;
  // Without room for one more it is forgotten: what lies behind it then looks torn, or damaged.
  void add_cut(const Cut& cut) {
    if (cut_count < kMaxCuts) cuts[cut_count++] = cut;
  }
  void note_freed(FileId file) { freed[freed_count++ % kFreedKept] = file; }
  void set_boot_id(const std::string& id);
  bool boot_id_is(const std::string& id) const;
};
static_assert(sizeof(Superblock) <= kBlock && std::is_trivially_copyable_v<Superblock>);

inline constexpr const char* kSuperblockPath = "super";

inline constexpr size_t kSuperblockCopies = 4;
// Each copy as it lies in the file, where it is whole; `ours`: one at least has our magic.
struct SuperblockCopies {
  std::array<std::optional<Superblock>, kSuperblockCopies> copies;
  bool ours = false;
  std::optional<Superblock> newest() const;
};
SuperblockCopies read_superblock_copies(storage::File& file);

// Reads the newest whole copy. ENOENT: no volume here. EINVAL: not a superblock of ours, or none of
// its copies is whole.
Result<Superblock> read_superblock(storage::Storage& storage);

// Writes generation + 1 durably; at every moment a whole copy of the old or the new one exists.
Status write_superblock(storage::Storage& storage, Superblock& superblock);

// Makes the file of a new volume.
Status create_superblock(storage::Storage& storage, Superblock& superblock);

}  // namespace valfs::log
