// Replay: the records of the groups that recovery keeps, applied to the index.
#pragma once

#include <memory_resource>

#include "engine/base/large_memory.h"
#include "engine/recovery/recovery.h"
#include "engine/recovery/verdict.h"

namespace valfs::recovery {

class Replay {
 public:
  Replay(index::Index& index, const log::LogFiles& files, Recovered& result)
      : index_(index), files_(files), result_(result) {}

  Status run(const Verdict& verdict, index::Index::Mode mode);

 private:
  // A record without its payload, for replay in order of sequence.
  struct Kept {
    log::RecordSequence sequence;
    uint32_t order;  // place in the log, for records of the same sequence
    log::RecordType type;
    const log::LogFile* file;
    index::Placed placed;
    const std::byte* meta;  // in metas_
  };

  Status take_group(const FoundGroup& group, index::Index::Mode mode);
  void take_stretch(const Stretch& stretch, index::Index::Mode mode);
  void take(const log::LogFile& file, uint64_t group_offset, const log::GroupContents::Entry& entry,
            std::span<const std::byte> image, index::Index::Mode mode);
  void apply(const log::Record& record, const index::Placed& placed, index::Index::Mode mode);
  void apply_kept();
  void note_blob(const log::Record& record);
  void mark_lost();

  index::Index& index_;
  const log::LogFiles& files_;
  Recovered& result_;
  std::vector<Kept, LargeAllocator<Kept>> kept_;
  LargeMemory large_memory_;
  std::pmr::monotonic_buffer_resource metas_{&large_memory_};
  std::vector<std::byte> image_;  // of the group at hand
  std::vector<log::DirectoryEntry> lost_;
  bool damaged_ = false;  // something is: names may be lost
};

}  // namespace valfs::recovery
