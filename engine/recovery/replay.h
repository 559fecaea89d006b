// Replay: the records of the groups that recovery keeps, applied to the index.
//
// Behind a checkpoint they are applied as they lie in the log. Without one the order is that of
// their sequences, which the cleaner's copies do not keep: so what is out of order is collected
// first, without payloads, and then merged into the rest as that is read.
#pragma once

#include <memory_resource>

#include "engine/base/large_memory.h"
#include "engine/recovery/group_reader.h"
#include "engine/recovery/recovery.h"
#include "engine/recovery/verdict.h"

namespace valfs::recovery {

class Replay {
 public:
  // `ahead`: groups are read by a thread of its own.
  Replay(index::Index& index, const log::LogFiles& files, bool ahead, Recovered& result)
      : index_(index), files_(files), ahead_(ahead), result_(result) {}

  Status run(const Verdict& verdict, index::Index::Mode mode);

 private:
  // A record without its payload, until its turn comes.
  struct Kept {
    log::RecordSequence sequence;
    uint32_t order;  // place in the log, for records of the same sequence
    const log::LogFile* file;
    index::Placed placed;
    const std::byte* meta;  // in metas_
  };

  Status run_in_log_order(const Verdict& verdict);
  Status run_in_sequence_order(const Verdict& verdict);
  // With what has to happen for each record: it is seen, and then applied, kept, or merged.
  using Take = void (Replay::*)(const log::LogFile& file, const log::Record& record,
                                const index::Placed& placed, std::span<const std::byte> meta);
  Status take_group(const GroupReader::Loaded& loaded, Take take);
  void take_stretch(const Stretch& stretch, Take take);
  void see(const log::LogFile& file, uint64_t begin, const log::GroupContents::Entry& entry,
           std::span<const std::byte> image, Take take);

  void take_now(const log::LogFile& file, const log::Record& record, const index::Placed& placed,
                std::span<const std::byte> meta);
  void keep(const log::LogFile& file, const log::Record& record, const index::Placed& placed,
            std::span<const std::byte> meta);
  void merge(const log::LogFile& file, const log::Record& record, const index::Placed& placed,
             std::span<const std::byte> meta);

  void sort_kept();
  void merge_kept(log::RecordSequence end);
  void add_to_batch(const log::Record& record, const index::Placed& placed);
  void apply_batch();
  void apply(const log::Record& record, const index::Placed& placed, index::Index::Mode mode);
  void note_blob(const log::Record& record);
  void mark_lost();

  index::Index& index_;
  const log::LogFiles& files_;
  const bool ahead_;
  Recovered& result_;
  std::vector<Kept, LargeAllocator<Kept>> kept_;
  size_t merged_ = 0;  // so many of them are in the batch, or applied
  LargeMemory large_memory_;
  std::pmr::monotonic_buffer_resource metas_{&large_memory_};
  // Records that wait for the index to have its memory fetched for all of them; views into the
  // group at hand and metas_.
  std::vector<log::Record> batch_;
  std::vector<index::Placed> batch_places_;
  std::vector<log::DirectoryEntry> lost_;
  bool damaged_ = false;  // something is: names may be lost
};

}  // namespace valfs::recovery
