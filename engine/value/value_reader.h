// Reads values that lie in the log: cache, then staging slot, then log file, every byte checked.
#pragma once

#include <span>

#include "engine/core.h"

namespace valfs {

class ValueReader {
 public:
  explicit ValueReader(Core& core) : core_(core) {}

  // Reads [offset, offset + into.size()) of the value of `id`; returns how many bytes there are
  // (fewer at its end), holes as zeros. EIO, with a sentence that names log file and offset, if
  // something in the range is damaged. ENOENT: no such object. Thread-safe.
  Result<size_t> read(log::ObjectId id, uint64_t offset, std::span<std::byte> into);

  // The same past the cache, without limit to the last chunk: for folding and moving values.
  Status read_uncached(log::ObjectId id, uint64_t offset, std::span<std::byte> into);

 private:
  // What a read needs of the index, taken under its lock.
  struct Part {
    index::Extent extent;
    log::LogFileRef file;
    bool done = false;  // copied out of a staging slot
  };
  struct Snapshot {
    uint64_t size = 0;
    log::RecordSequence sequence = 0;
    std::vector<Part> parts;
  };

  Result<Snapshot> take_snapshot(log::ObjectId id, uint64_t begin, std::span<std::byte> into);
  bool read_slot(const Part& part, uint64_t skip, std::span<std::byte> into) const;
  Status fill(const Snapshot& snapshot, uint64_t begin, std::span<std::byte> into);
  bool was_freed(const Snapshot& snapshot) const;
  // Both; again, if the cleaner has freed what the first snapshot points to.
  Result<Snapshot> read_range(log::ObjectId id, uint64_t begin, std::span<std::byte> into);
  Status read_missing(log::ObjectId id, uint64_t size, uint64_t begin, std::span<std::byte> into);
  void remember(log::ObjectId id, uint64_t chunk, log::RecordSequence sequence,
                std::span<const std::byte> bytes);

  Core& core_;
};

}  // namespace valfs
