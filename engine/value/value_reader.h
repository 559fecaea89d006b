// Reads values that lie in the log: cache, then staging slot, then log file, every byte checked.
#pragma once

#include <boost/container/small_vector.hpp>
#include <functional>
#include <optional>
#include <span>

#include "engine/base/buffer.h"
#include "engine/core.h"
#include "engine/log/payload_reader.h"

namespace valfs {

class ValueReader {
 public:
  // Bytes that one look at the index may be asked for: what is in memory is copied under its lock.
  static constexpr uint64_t kOneLook = 4 << 20;

  // Says which value is meant, or why there is none. Called with the index locked, perhaps again.
  using Find = std::function<Result<index::Found<index::Inode>>(const index::Index&)>;

  explicit ValueReader(Core& core) : core_(core) {}

  // Reads [offset, offset + into.size()) of a value, at most kOneLook bytes, as it is at one
  // moment; returns how many bytes there are (fewer at its end), holes as zeros. Nothing is read,
  // and nothing returned, if the value lies in bin/. EIO, with a sentence that names log file and
  // offset, if something in the range is damaged. Thread-safe.
  // Where it may not wait for the disk: EAGAIN if it would have to.
  Result<std::optional<size_t>> read(const Find& find, uint64_t offset, std::span<std::byte> into,
                                     log::Wait wait = log::Wait::kForDisk);

  // Caches a small value that has just been written as a whole, by the record of that sequence.
  void remember_written(log::ObjectId id, log::RecordSequence sequence,
                        std::span<const std::byte> bytes);

  // The same past the cache, without limit to the last chunk: for folding and moving values.
  // ENOENT: no such object.
  Status read_uncached(log::ObjectId id, uint64_t offset, std::span<std::byte> into);

 private:
  struct Part {
    index::Extent extent;
    log::LogFileRef file;
    bool done = false;  // copied out of a staging slot
  };
  // Bytes [begin, begin + into.size()) of a value that are to be read.
  struct Run {
    uint64_t begin = 0;
    std::span<std::byte> into;
    Buffer own;  // what `into` is, if it is more than was asked for
    boost::container::small_vector<Part, 1> parts;

    uint64_t end() const { return begin + into.size(); }
  };
  // What a read needs of the index, taken under its lock; what is in memory is copied there.
  struct Look {
    log::ObjectId id = 0;
    log::RecordSequence sequence = 0;
    size_t bytes = 0;  // that the read gives
    bool in_blob = false;
    boost::container::small_vector<Run, 1> runs;
  };

  Result<Look> look(const Find& find, uint64_t offset, std::span<std::byte> into, bool cached);
  void look_in_cache(const index::Inode& inode, uint64_t offset, std::span<std::byte> into,
                     Look& look);
  void plan(const index::Inode& inode, Run& run) const;
  bool read_slot(const Part& part, uint64_t skip, std::span<std::byte> into) const;
  Status fill(const Look& look, log::Wait wait) const;
  bool was_freed(const Look& look) const;
  static bool has_places_of(const Look& a, const Look& b);
  // Both; again, if the cleaner has freed what the first look points to.
  Result<Look> look_and_fill(const Find& find, uint64_t offset, std::span<std::byte> into,
                             bool cached, log::Wait wait);
  void remember(const Look& look);

  Core& core_;
};

}  // namespace valfs
