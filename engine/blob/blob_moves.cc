// Values that change their place or shape: into bin/, out of it, shorter.
#include <algorithm>
#include <cstring>

#include "engine/base/planted.h"
#include "engine/blob/blobs.h"

namespace valfs::blob {
namespace {

constexpr size_t kSumSize = sizeof(uint32_t);
constexpr uint64_t kPiece = 1 << 20;
constexpr size_t kMostSummed = 4096;  // chunks whose sums fit in the batch that names a blob

std::string parent_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

Result<std::shared_ptr<storage::File>> create_blob(storage::Storage& storage,
                                                   const std::string& path) {
  const std::string second = parent_of(path);
  const std::string first = parent_of(second);
  VALFS_TRY(storage.make_directory(first));
  VALFS_TRY(storage.make_directory(second));
  return storage.open(path, storage::OpenMode::kCreate);
}

// File, name, and the directories that lead to it.
Status make_durable(storage::Storage& storage, storage::File& file, const std::string& path) {
  if (!planted(Bug::kBlobNotSynced)) VALFS_TRY(file.sync());
  if (planted(Bug::kBlobWithoutName)) return {};
  VALFS_TRY(storage.sync_directory(parent_of(path)));
  VALFS_TRY(storage.sync_directory(parent_of(parent_of(path))));
  return storage.sync_directory("bin");
}

}  // namespace

// Runs of bytes of a value in the log; holes lie between them.
std::vector<std::pair<uint64_t, uint64_t>> Blobs::runs_of(log::ObjectId inode) const {
  std::vector<std::pair<uint64_t, uint64_t>> runs;
  const std::shared_lock lock(core_.state);
  const auto known = core_.index.find(inode);
  if (known == nullptr) return runs;
  for (const auto& extent : known->extents().all()) {
    if (!runs.empty() && runs.back().second == extent.offset) {
      runs.back().second = extent.end();
    } else {
      runs.emplace_back(extent.offset, extent.end());
    }
  }
  return runs;
}

// Copies a value from the log to its new file, durably, and sums it; chunks that are holes stay
// without a sum.
Status Blobs::copy_out(log::ObjectId inode, uint64_t size, storage::File& file,
                       const std::string& path, ChunkSums& sums) {
  std::set<uint64_t> chunks;
  for (const auto& [begin, end] : runs_of(inode)) {
    for (uint64_t at = begin; at < end; at += kPiece) {
      std::vector<std::byte> bytes(std::min(kPiece, end - at));
      VALFS_TRY(values_.read_uncached(inode, at, bytes));
      VALFS_TRY(file.write(at, bytes));
    }
    for (uint64_t chunk = begin / kValueChunk; chunk * kValueChunk < end; chunk++) {
      chunks.insert(chunk);
    }
  }
  VALFS_TRY(file.resize(size));
  // A value of very many small pieces: its sums are made when it is quiet.
  for (const uint64_t chunk : chunks.size() > kMostSummed ? std::set<uint64_t>{} : chunks) {
    std::vector<std::byte> bytes(std::min(kValueChunk, size - chunk * kValueChunk));
    VALFS_TRY(values_.read_uncached(inode, chunk * kValueChunk, bytes));
    sums.set(chunk, chunk_sum(bytes));
  }
  return make_durable(core_.storage, file, path);
}

Status Blobs::move_to_blob(log::ObjectId inode, Time now) {
  VALFS_ASSIGN(const Place place, place_of(inode));
  if (core_.available_bytes() < core_.options.blob_threshold) {
    return fail(ENOSPC, name_of(inode) + ": no space left on the volume");
  }
  const log::ObjectId id = core_.writer->new_object();
  const std::string path = blob_path(id);
  VALFS_ASSIGN(const auto file, create_blob(core_.storage, path));
  ChunkSums sums;
  Status moved = copy_out(inode, place.size, *file, path, sums);
  if (moved) moved = name_blob(inode, id, sums, now);
  if (!moved) {
    (void)core_.storage.remove(path);  // else it is swept at the next mount
    return moved;
  }
  core_.blob_bytes += allocated(id);
  return {};
}

// The record that makes the file the value, with the sums of its chunks.
Status Blobs::name_blob(log::ObjectId inode, log::ObjectId id, const ChunkSums& sums, Time now) {
  const auto ranges = sums.ranges();
  uint64_t count = 0;
  for (const auto& range : ranges) count += range.second.size();
  VALFS_ASSIGN(auto transaction,
               Transaction::begin(
                   core_, Transaction::Size::of(2 + ranges.size(), 0, (count + 1) * kSumSize)));
  VALFS_TRY(still_names(transaction, inode, 0));
  index::Attributes attributes = transaction.index().find(inode)->attributes;
  attributes.blob = id;
  transaction.truncate_quietly(inode, 0);  // what the log holds of it must never come back
  transaction.put(inode, attributes);
  for (const auto& [first, values] : ranges) {
    transaction.write_sums(id, first * kSumSize, std::as_bytes(std::span(values)));
  }
  transaction.commit(now);
  return {};
}

Status Blobs::move_to_log(log::ObjectId inode, Time now) {
  VALFS_ASSIGN(const Place place, place_of(inode));
  if (place.blob == 0 || place.size > core_.options.blob_threshold) return {};
  std::vector<std::byte> bytes(place.size);
  VALFS_ASSIGN(const size_t got, read(inode, 0, bytes));
  if (got != bytes.size()) return fail(EIO, name_of(inode) + ": the file in bin/ is too short");
  VALFS_ASSIGN(
      auto transaction,
      Transaction::begin(core_, Transaction::Size::of(3, Transaction::kSalvageName, bytes.size())));
  VALFS_TRY(still_names(transaction, inode, place.blob));
  index::Attributes attributes = transaction.index().find(inode)->attributes;
  attributes.blob = 0;
  if (!bytes.empty()) transaction.write(inode, 0, bytes);
  transaction.put(inode, attributes);  // after the bytes: times and size stay what they were
  transaction.remove(place.blob);
  transaction.commit(now);
  remove_later(place.blob, inode);
  return {};
}

Status Blobs::truncate(log::ObjectId inode, uint64_t size, Time now) {
  VALFS_ASSIGN(Place place, place_of(inode));
  if (size == 0) {  // a new value begins; the old file goes when that is durable (P5)
    VALFS_ASSIGN(auto transaction, Transaction::begin(core_, Transaction::Size::of(3, 0, 0),
                                                      log::LogWriter::Purpose::kReserve));
    VALFS_TRY(still_names(transaction, inode, place.blob));
    index::Attributes attributes = transaction.index().find(inode)->attributes;
    attributes.blob = 0;
    attributes.size = 0;
    attributes.touch(now);
    transaction.put(inode, attributes);
    transaction.remove(place.blob);
    transaction.commit(now);
    remove_later(place.blob, inode);
    return {};
  }
  VALFS_ASSIGN(const BlobRef blob, open(inode, place));
  VALFS_TRY(may_change(*blob));
  const uint64_t tail_chunk = (std::min(size, place.size) - 1) / kValueChunk;
  // While the log does not know the new size, the old sum has to fit the old bytes.
  const auto give_up = [&, tail_sum = blob->sums.get(tail_chunk)](const Error& error) -> Status {
    blob->sums.set(tail_chunk, tail_sum);
    return tl::unexpected(error);
  };
  if (size < place.size) {
    // Checked before it is cut: the new sum must not vouch for bytes that were bad.
    const uint32_t old = blob->sums.get(tail_chunk);
    VALFS_ASSIGN(auto bytes, read_chunk(*blob, tail_chunk, place.size));
    bytes.resize(size - tail_chunk * kValueChunk);
    if (old != 0) set_sum(*blob, tail_chunk, chunk_sum(bytes));
  } else if (size > place.size && place.size % kValueChunk != 0) {
    const uint64_t covered = place.size % kValueChunk;
    const std::vector<std::byte> zeros(std::min(size - place.size, kValueChunk - covered));
    extend_sum(*blob, tail_chunk, covered, zeros);
  }
  // Where the region is marked, the log gets the sum of this chunk back with the record below.
  if (blob->sums.get(tail_chunk) != 0) set_sum(*blob, tail_chunk, blob->sums.get(tail_chunk));
  const auto tail = blob->sums.range(tail_chunk, 1);
  // Growing may be refused; the log must not say otherwise. What lies behind the end is cut off
  // when the file is opened next.
  if (size > place.size) {
    if (auto grown = blob->file->resize(size); !grown) return give_up(grown.error());
  }
  auto begun = Transaction::begin(
      core_, Transaction::Size::of(4, 0, kSumSize),
      size < place.size ? log::LogWriter::Purpose::kReserve : log::LogWriter::Purpose::kOrdinary);
  if (!begun) return give_up(begun.error());
  Transaction transaction = std::move(*begun);
  if (auto there = still_names(transaction, inode, place.blob); !there) {
    return give_up(there.error());
  }
  announce(*blob, transaction, std::min(size, place.size));
  transaction.truncate(inode, size);
  if (size < place.size) {
    transaction.truncate_quietly(place.blob, (tail_chunk + 1) * kSumSize);
  }
  transaction.write_sums(place.blob, tail_chunk * kSumSize, std::as_bytes(std::span(tail)));
  transaction.commit(now);
  note_undurable(*blob);
  blob->durable_size = std::min(blob->durable_size, size);
  if (size < place.size) {
    blob->sums.truncate(tail_chunk + 1);
    blob->dirty.erase(blob->dirty.lower_bound(tail_chunk + 1), blob->dirty.end());
    if (!planted(Bug::kShortenEarly)) {
      VALFS_TRY(core_.writer->sync());  // the file may lose its bytes only then
    }
  }
  const uint64_t before = allocated_in(*blob);
  if (size < place.size) VALFS_TRY(shorten(*blob, size));
  recount(*blob, before);
  return {};
}

Status Blobs::punch(log::ObjectId inode, uint64_t offset, uint64_t length, Time now) {
  VALFS_ASSIGN(const Place place, place_of(inode));
  if (offset >= place.size) return {};
  VALFS_ASSIGN(const BlobRef blob, open(inode, place));
  VALFS_TRY(may_change(*blob));
  const uint64_t end = offset + std::min(length, place.size - offset);
  if (end == offset) return {};
  VALFS_TRY(check_edges(*blob, offset, end, place.size));
  VALFS_TRY(mark(*blob, offset, end, place.size));
  note_undurable(*blob);
  note_overwritten(*blob, offset, end);
  const uint64_t before = allocated_in(*blob);
  VALFS_TRY(blob->file->punch(offset, end - offset));
  recount(*blob, before);
  return append_written(*blob, offset, end - offset, place.size, now);
}

}  // namespace valfs::blob
