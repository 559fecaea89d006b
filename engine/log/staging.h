// Staging slots: where groups gather, in memory that outlives the daemon (promise P1).
//
//   block 0         StagingHeader
//   then per slot   SlotHeader (one block), image (slot_size bytes: the group as it will be
//   written)
//
// A slot belongs to the log writer. It becomes true, as one atomic store, with `committed`: bytes
// of the image that hold whole records; 0 = the slot is free. A process that dies leaves memory as
// its stores made it, so all that was committed is there.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "engine/log/group.h"

namespace valfs::log {

struct StagingHeader {
  static constexpr uint64_t kMagic = 0x31475453'46464c56;  // "VLFFSTG1"
  uint64_t magic = kMagic;
  VolumeId volume;
  Epoch epoch = 0;
  uint32_t slot_count = 0;
  uint64_t slot_size = 0;
  uint32_t reserved = 0;
  uint32_t crc = 0;
};
static_assert(sizeof(StagingHeader) == 48);

struct SlotHeader {
  std::atomic<uint64_t> committed;
  GroupSequence sequence;
  FileId file;
  Epoch epoch;
  uint64_t offset;  // of the group in its file
  uint64_t previous_end;
  uint32_t previous_crc;
  Stream stream;
  uint16_t reserved;
};
static_assert(sizeof(SlotHeader) == 48 && std::atomic<uint64_t>::is_always_lock_free);

class Staging {
 public:
  static uint64_t bytes_needed(uint32_t slot_count, uint64_t slot_size);

  // Makes empty slots in `memory`.
  Staging(std::unique_ptr<storage::StagingMemory> memory, const VolumeId& volume, Epoch epoch,
          uint32_t slot_count, uint64_t slot_size);

  uint32_t slot_count() const { return slot_count_; }
  uint64_t slot_size() const { return slot_size_; }
  SlotHeader& header(uint32_t slot);
  std::byte* image(uint32_t slot);

 private:
  std::byte* slot_start(uint32_t slot);

  std::unique_ptr<storage::StagingMemory> memory_;
  uint32_t slot_count_;
  uint64_t slot_size_;
};

// A group that a dead daemon left in a slot.
struct StagedGroup {
  GroupPlace place;
  std::vector<std::byte> image;  // sealed, ready to be written to place.offset
  uint32_t record_count = 0;
};

// What the slots of a dead daemon hold, by sequence; EINVAL if the memory is not staging memory of
// this volume and epoch.
Result<std::vector<StagedGroup>> read_staging(std::span<const std::byte> memory,
                                              const VolumeId& volume, Epoch epoch,
                                              RecordSequence next_record, ObjectId next_object);

}  // namespace valfs::log
