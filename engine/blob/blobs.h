// Values in bin/: one file each, chunk sums in the log. The order of writes is in engine/README.md.
//
// Thread-safe for calls about different values. For one value the caller holds its value lock:
// exclusive for whatever changes it (and flush), shared for read.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "engine/blob/chunk_sums.h"
#include "engine/recovery/recovery.h"
#include "engine/transaction.h"
#include "engine/value/value_reader.h"

namespace valfs::blob {

std::string blob_path(log::ObjectId blob);

class Blobs {
 public:
  Blobs(Core& core, ValueReader& values) : core_(core), values_(values) {}

  // At mount, before anything is appended to the log: what start() has to look at stays undurable
  // until it has.
  void expect(const recovery::Recovered& recovered);
  // At mount: removes files that no inode names (or, where damage was found, sets
  // them aside: what named them may be what is lost), counts bytes, and believes what was written
  // last only as far as its sums are right.
  Status start(const recovery::Recovered& recovered, std::vector<std::string>& warnings);

  // Moves a value from the log to a file, durably.
  Status move_to_blob(log::ObjectId inode, Time now);
  // Moves a value that has become small back to the log.
  Status move_to_log(log::ObjectId inode, Time now);

  Result<size_t> read(log::ObjectId inode, uint64_t offset, std::span<std::byte> into);
  Status write(log::ObjectId inode, uint64_t offset, std::span<const std::byte> bytes, Time now);
  Status truncate(log::ObjectId inode, uint64_t size, Time now);
  Status punch(log::ObjectId inode, uint64_t offset, uint64_t length, Time now);

  // Makes the bytes durable and says so in the log (whose commit is the caller's). Fails for ever
  // once it has failed (P8).
  Status flush(log::ObjectId inode);
  // Sums anew what was overwritten, if the blob has been quiet; needs a flush before.
  Status sum_anew(log::ObjectId inode);
  // Checks every chunk that has a sum, while others read and write: takes the value lock itself,
  // chunk by chunk. `paced` is told of bytes read and ends it with false.
  Status scrub(log::ObjectId inode, const std::function<bool(uint64_t bytes)>& paced,
               const std::function<void(uint64_t offset, const Error&)>& damaged);
  // Inodes whose bytes are not durable, or whose sums wait to be made.
  std::vector<log::ObjectId> unfinished() const;
  // True if bytes of it are not durable.
  bool is_undurable(log::ObjectId inode) const;
  // When the oldest byte that is not durable was written.
  std::optional<std::chrono::steady_clock::time_point> undurable_since() const;

  // Bytes on the disk.
  uint64_t allocated(log::ObjectId blob);
  // Removes the file once the removal of its inode, which must have been appended, is durable.
  void remove_later(log::ObjectId blob, log::ObjectId inode);

 private:
  struct Blob {
    log::ObjectId inode = 0;
    log::ObjectId id = 0;
    std::shared_ptr<storage::File> file;
    ChunkSums sums;
    std::set<uint64_t> marked;           // regions whose sums are 0 in the log,
    std::set<uint64_t> resummed;         // but for these chunks of them
    std::set<uint64_t> dirty;            // chunks to be summed anew
    std::atomic<bool> unsummed{false};   // there are some
    std::atomic<bool> undurable{false};  // bytes were written since the last flush
    uint64_t durable_size = 0;           // so many bytes were there at the last flush
    bool announced = false;              // the log says up to where it was durable before that
    std::chrono::steady_clock::time_point undurable_since;
    std::chrono::steady_clock::time_point last_overwrite;
    std::optional<Error> failure;
  };
  using BlobRef = std::shared_ptr<Blob>;
  struct Place {
    log::ObjectId blob = 0;
    uint64_t size = 0;
    index::Attributes attributes;
  };

  // ENOENT if the inode is gone, or its value is no longer where it was: names may be removed while
  // a value is being changed.
  static Status still_names(const Transaction& transaction, log::ObjectId inode,
                            log::ObjectId blob);
  std::vector<std::pair<uint64_t, uint64_t>> runs_of(log::ObjectId inode) const;
  Status copy_out(log::ObjectId inode, uint64_t size, storage::File& file, const std::string& path,
                  ChunkSums& sums);
  Status name_blob(log::ObjectId inode, log::ObjectId id, const ChunkSums& sums, Time now);
  static uint64_t allocated_in(const Blob& blob);
  void recount(const Blob& blob, uint64_t before);  // what the volume takes has changed
  Result<Place> place_of(log::ObjectId inode) const;
  Result<BlobRef> open(log::ObjectId inode, const Place& place);
  Status may_change(const Blob& blob) const;
  static Status shorten(Blob& blob, uint64_t size);
  Status load_sums(Blob& blob, uint64_t size);
  Status mark(Blob& blob, uint64_t begin, uint64_t end, uint64_t size);
  Status sum_region(Blob& blob, uint64_t region, uint64_t size);
  static void set_dirty(Blob& blob, uint64_t chunk);
  static void set_sum(Blob& blob, uint64_t chunk, uint32_t sum);
  Status check_edges(Blob& blob, uint64_t begin, uint64_t end, uint64_t size);
  void note_overwritten(Blob& blob, uint64_t begin, uint64_t end);
  bool sum_appended(Blob& blob, uint64_t offset, std::span<const std::byte> bytes, uint64_t size);
  static void announce(Blob& blob, Transaction& transaction, uint64_t durable_size);
  void extend_sum(Blob& blob, uint64_t chunk, uint64_t covered, std::span<const std::byte> bytes);
  void note_undurable(Blob& blob);
  Status append_written(Blob& blob, uint64_t offset, uint64_t length, uint64_t old_size, Time now);
  Status verify_tail(log::ObjectId inode, const recovery::BlobTail& tail,
                     std::vector<std::string>& warnings);
  Status sweep(bool keep, std::vector<std::string>& warnings);
  Result<std::vector<std::byte>> read_chunk(Blob& blob, uint64_t chunk, uint64_t size);
  std::string name_of(log::ObjectId inode) const;
  void forget(log::ObjectId inode);

  Core& core_;
  ValueReader& values_;
  mutable std::mutex mutex_;               // guards what follows
  std::map<log::ObjectId, BlobRef> open_;  // by inode
  std::set<log::ObjectId> unverified_;     // inodes
};

}  // namespace valfs::blob
