// A change under construction: records that become visible together and after any crash are all
// there or not at all.
//
// Holds the store's exclusive lock from begin to commit, so what it reads in the index stays true.
// Room for its records was made before, so commit cannot fail. A transaction that is not committed
// changes nothing. Names and payloads given to it must stay as they are until commit.
#pragma once

#include <boost/container/small_vector.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "engine/core.h"

namespace valfs {

class Transaction {
 public:
  struct Size {
    uint64_t bytes = 0;  // upper bound of all records' total_length()
    size_t records = 0;
    // A bound for that many records with names and payloads of so many bytes in all.
    static Size of(size_t records, uint64_t name_bytes, uint64_t payload_bytes);
  };
  // Room for the name that write() gives an EXTENT for salvage; longer ones it leaves out.
  static constexpr uint64_t kSalvageName = 1024;

  // Waits for room in the staging slots and the log. ENOSPC: the volume is full. EIO: the log has
  // failed (P8).
  static Result<Transaction> begin(
      Core& core, const Size& size,
      log::LogWriter::Purpose purpose = log::LogWriter::Purpose::kOrdinary,
      log::Stream stream = log::Stream::kUser);

  Transaction(Transaction&&) = default;
  ~Transaction();

  const index::Index& index() const { return core_->index; }
  log::ObjectId new_object() { return core_->writer->new_object(); }

  void put(log::ObjectId inode, const index::Attributes& attributes);
  void add_name(log::ObjectId parent, std::string_view name, log::ObjectId inode);
  void remove_name(const index::Name& name);
  void remove(log::ObjectId inode);
  void write(log::ObjectId inode, uint64_t offset, std::span<const std::byte> bytes);
  void truncate(log::ObjectId inode, uint64_t size);
  void zero(log::ObjectId inode, uint64_t offset, uint64_t length);
  // Changes the bytes of a value without touching the inode's times.
  void truncate_quietly(log::ObjectId inode, uint64_t size);
  void write_sums(log::ObjectId blob, uint64_t offset, std::span<const std::byte> bytes);
  void blob_written(log::ObjectId inode, uint64_t offset, uint64_t length);
  void blob_synced(log::ObjectId inode, uint64_t size);
  void manifest(const log::Manifest& manifest);
  // For the cleaner: a record as it is, with its sequence.
  void add(const log::Record& record);

  // Raises the holds of an inode (see Store::hold) as part of the commit.
  void hold(log::ObjectId inode) { holds_.push_back(inode); }

  bool empty() const { return records_.empty(); }
  uint64_t bytes() const;  // of its records in the log

  // Appends and applies. `now` is the time of the change. Returns where the records are.
  std::vector<index::Placed> commit(Time now);
  // After commit(): of the last record; 0 if there was none.
  log::RecordSequence last_sequence() const { return last_sequence_; }

 private:
  Transaction(Core& core, std::unique_lock<SpinningMutex> lock)
      : core_(&core), lock_(std::move(lock)) {
    records_.reserve(kUsualRecords);
  }
  static constexpr size_t kUsualRecords = 4;  // or fewer

  log::Record& new_record(log::RecordType type, log::ObjectId id);
  std::span<const std::byte> keep(std::span<const std::byte> bytes);
  void forget_cached(const log::Record& record);
  void forget_removed();

  Core* core_;
  std::unique_lock<SpinningMutex> lock_;
  std::vector<log::Record> records_;
  boost::container::small_vector<bool, kUsualRecords> quiet_;
  boost::container::small_vector<log::ObjectId, 1> holds_;
  // Chunks of removed values. Nobody finds those any more, so that they can go without the lock.
  struct Chunks {
    log::ObjectId id = 0;
    uint64_t first = 0;
    uint64_t last = 0;
  };
  boost::container::small_vector<Chunks, 1> removed_;
  log::RecordSequence last_sequence_ = 0;
  std::vector<std::unique_ptr<std::byte[]>> kept_;
};

}  // namespace valfs
