// Copies that the cleaner makes under one lock. Without a transaction: a trial, which only counts
// what they would take.
#pragma once

#include "engine/cleaner/cleaner.h"

namespace valfs::cleaner {

class Cleaner::Batch {
 public:
  static constexpr size_t kRecords = 512;  // most of one batch

  // Room for at least one record of `first` bytes, however large, and its copy's additions.
  static Transaction::Size size_for(uint64_t first, uint64_t slot_size) {
    constexpr uint64_t kBytes = 256 * 1024;
    constexpr size_t kFewRecords = 2;
    constexpr uint64_t kAdditions = 64;  // position, padding
    const size_t many = std::min<size_t>(kRecords, slot_size / 512);
    const auto room = [slot_size](size_t records) {
      return slot_size - sizeof(log::GroupHeader) - records * sizeof(log::DirectoryEntry);
    };
    if (first + kAdditions > room(many)) return {room(kFewRecords), kFewRecords};
    return {std::min(std::max(first + kAdditions, kBytes), room(many)), many};
  }

  Batch(const index::Index& index, const Packer& packer, const Transaction::Size& room,
        Transaction* transaction)
      : index_(index), packer_(packer), room_(room), transaction_(transaction) {}

  const index::Index& index() const { return index_; }
  const Packer& packer() const { return packer_; }
  // A run has no form yet: the batch ends before it.
  void end_unprepared() { unprepared_ = true; }
  bool unprepared() const { return unprepared_; }
  // Compressed in this batch: bytes of records, and of what they hold.
  void note_compressed(uint64_t stored, uint64_t raw) {
    compressed_++;
    compressed_bytes_ += stored;
    compressed_raw_bytes_ += raw;
  }
  uint64_t compressed() const { return compressed_; }
  uint64_t compressed_bytes() const { return compressed_bytes_; }
  uint64_t compressed_raw_bytes() const { return compressed_raw_bytes_; }
  Transaction::Size taken() const { return {bytes_, added_.size()}; }

  // False if there is no room for it. `blocker`: of a tombstone, the file that it is kept for.
  bool add(const log::Record& record, log::FileId blocker = 0) {
    const uint64_t bytes = record.total_length();
    if (bytes_ + bytes > room_.bytes || added_.size() == room_.records) return false;
    bytes_ += bytes;
    if (transaction_ != nullptr) transaction_->add(record);
    if (record.type == log::RecordType::kInode) renewed_.insert(record.id);
    added_.push_back({bytes, blocker});
    return true;
  }
  // Keep what records point to until the commit.
  std::span<const std::byte> keep(const index::Attributes& attributes) {
    return log::bytes_of(attributes_.emplace_back(attributes));
  }
  std::span<const std::byte> keep(log::Position position) {
    return log::bytes_of(positions_.emplace_back(position));
  }

  // True if an INODE record of `id` is in the batch.
  bool renewed(log::ObjectId id) const { return renewed_.count(id) > 0; }

  bool empty() const { return added_.empty(); }
  // Calls `tombstone(file, blocker, bytes)` for each that was copied; returns bytes copied.
  template <class Tombstone>
  uint64_t commit(Tombstone tombstone) {
    const auto placed = transaction_->commit({});
    for (size_t i = 0; i < added_.size(); i++) {
      if (added_[i].blocker != 0) {
        tombstone(placed[i].position.file(), added_[i].blocker, added_[i].bytes);
      }
    }
    return bytes_;
  }

 private:
  struct Added {
    uint64_t bytes;
    log::FileId blocker;
  };

  const index::Index& index_;
  const Packer& packer_;
  const Transaction::Size room_;
  Transaction* const transaction_;
  uint64_t bytes_ = 0;
  uint64_t compressed_ = 0;
  uint64_t compressed_bytes_ = 0;
  uint64_t compressed_raw_bytes_ = 0;
  bool unprepared_ = false;
  std::vector<Added> added_;
  std::set<log::ObjectId> renewed_;
  std::deque<index::Attributes> attributes_;
  std::deque<log::Position> positions_;
};

}  // namespace valfs::cleaner
