// Values that change their place or shape: into bin/, out of it, shorter.
#include <algorithm>
#include <cstring>

#include "engine/blob/blobs.h"

namespace valfs::blob {
namespace {

constexpr size_t kSumSize = sizeof(uint32_t);
constexpr uint64_t kPiece = 1 << 20;

uint64_t chunks_of(uint64_t size) { return (size + kValueChunk - 1) / kValueChunk; }
std::string parent_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

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
  VALFS_TRY(file.sync());
  VALFS_TRY(storage.sync_directory(parent_of(path)));
  VALFS_TRY(storage.sync_directory(parent_of(parent_of(path))));
  return storage.sync_directory("bin");
}

}  // namespace

Status Blobs::move_to_blob(log::ObjectId inode, Time now) {
  VALFS_ASSIGN(Place place, place_of(inode));
  std::vector<std::pair<uint64_t, uint64_t>> runs;  // holes stay holes
  log::ObjectId id;
  {
    const std::shared_lock lock(core_.state);
    id = core_.writer->new_object();
    for (const auto& extent : core_.index.find(inode)->extents.all()) {
      if (!runs.empty() && runs.back().second == extent.offset) {
        runs.back().second = extent.end();
      } else {
        runs.emplace_back(extent.offset, extent.end());
      }
    }
  }
  const std::string path = blob_path(id);
  VALFS_ASSIGN(const auto file, create_blob(core_.storage, path));
  const auto copy = [&]() -> Status {
    for (const auto& [begin, end] : runs) {
      for (uint64_t at = begin; at < end; at += kPiece) {
        std::vector<std::byte> bytes(std::min(kPiece, end - at));
        VALFS_TRY(values_.read_uncached(inode, at, bytes));
        VALFS_TRY(file->write(at, bytes));
      }
    }
    VALFS_TRY(file->resize(place.size));
    return make_durable(core_.storage, *file, path);
  };
  if (auto copied = copy(); !copied) {
    (void)core_.storage.remove(path);  // else it is swept at the next mount
    return copied;
  }
  // The value is at most a few MiB of bytes, so its summed chunks are few; holes stay unsummed.
  ChunkSums sums;
  uint64_t last_chunk = 0;
  for (const auto& [begin, end] : runs) {
    for (uint64_t chunk = begin / kValueChunk; chunk * kValueChunk < end; chunk++) {
      std::vector<std::byte> bytes(std::min(kValueChunk, place.size - chunk * kValueChunk));
      VALFS_TRY(values_.read_uncached(inode, chunk * kValueChunk, bytes));
      sums.set(chunk, chunk_sum(bytes));
      last_chunk = chunk;
    }
  }
  std::deque<std::vector<uint32_t>> kept;
  std::vector<uint64_t> firsts;
  for (const auto& [begin, end] : runs) {
    const uint64_t first = begin / kValueChunk;
    kept.push_back(sums.range(first, chunks_of(end) - first));
    firsts.push_back(first);
  }
  (void)last_chunk;
  VALFS_ASSIGN(auto transaction,
               Transaction::begin(core_, Transaction::Size::of(
                                             2 + kept.size(), 0,
                                             (chunks_of(core_.options.blob_threshold) +
                                              2 * kept.size() + 2) * kSumSize)));
  place.attributes = transaction.index().find(inode)->attributes;
  place.attributes.blob = id;
  transaction.truncate_quietly(inode, 0);  // what the log holds of it must never come back
  transaction.put(inode, place.attributes);
  for (size_t i = 0; i < kept.size(); i++) {
    transaction.write_sums(id, firsts[i] * kSumSize, std::as_bytes(std::span(kept[i])));
  }
  transaction.commit(now);
  core_.blob_bytes += allocated(id);
  return {};
}

Status Blobs::move_to_log(log::ObjectId inode, Time now) {
  VALFS_ASSIGN(const Place place, place_of(inode));
  if (place.blob == 0 || place.size > core_.options.blob_threshold) return {};
  std::vector<std::byte> bytes(place.size);
  VALFS_ASSIGN(const size_t got, read(inode, 0, bytes));
  if (got != bytes.size()) return fail(EIO, name_of(inode) + ": the file in bin/ is too short");
  VALFS_ASSIGN(auto transaction,
               Transaction::begin(core_, Transaction::Size::of(3, log::kMaxName, bytes.size())));
  index::Attributes attributes = transaction.index().find(inode)->attributes;
  attributes.blob = 0;
  transaction.write(inode, 0, bytes);
  transaction.put(inode, attributes);  // after the bytes: times and size stay what they were
  transaction.remove(place.blob);
  transaction.commit(now);
  remove_later(place.blob, inode);
  return {};
}

Status Blobs::truncate(log::ObjectId inode, uint64_t size, Time now) {
  VALFS_ASSIGN(Place place, place_of(inode));
  if (size == 0) {  // a new value begins; the old file goes when that is durable (P5)
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(core_, Transaction::Size::of(3, 0, 0),
                                    log::LogWriter::Purpose::kReserve));
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
  if (blob->failure) return tl::unexpected(*blob->failure);
  const uint64_t tail_chunk = (std::min(size, place.size) - 1) / kValueChunk;
  if (size < place.size) {
    // Checked before it is cut: the new sum must not vouch for bytes that were bad.
    const uint32_t old = blob->sums.get(tail_chunk);
    VALFS_ASSIGN(auto bytes, read_chunk(*blob, tail_chunk, place.size));
    bytes.resize(size - tail_chunk * kValueChunk);
    blob->sums.truncate(tail_chunk + 1);
    if (old != 0) set_sum(*blob, tail_chunk, chunk_sum(bytes));
  } else if (size > place.size && place.size % kValueChunk != 0) {
    const uint64_t covered = place.size % kValueChunk;
    const std::vector<std::byte> zeros(std::min(size - place.size, kValueChunk - covered));
    extend_sum(*blob, tail_chunk, covered, zeros);
  }
  const auto tail = blob->sums.range(tail_chunk, 1);
  VALFS_ASSIGN(auto transaction,
               Transaction::begin(core_, Transaction::Size::of(4, 0, kSumSize),
                                  size < place.size ? log::LogWriter::Purpose::kReserve
                                                    : log::LogWriter::Purpose::kOrdinary));
  announce(*blob, transaction, std::min(size, place.size));
  transaction.truncate(inode, size);
  if (size < place.size) {
    transaction.truncate_quietly(place.blob, (tail_chunk + 1) * kSumSize);
  }
  transaction.write_sums(place.blob, tail_chunk * kSumSize, std::as_bytes(std::span(tail)));
  transaction.commit(now);
  note_undurable(*blob);
  if (size < place.size) {
    blob->dirty.erase(blob->dirty.lower_bound(tail_chunk + 1), blob->dirty.end());
    VALFS_TRY(core_.writer->sync());  // the file may lose its bytes only then
  }
  return blob->file->resize(size);
}

Status Blobs::punch(log::ObjectId inode, uint64_t offset, uint64_t length, Time now) {
  VALFS_ASSIGN(const Place place, place_of(inode));
  if (offset >= place.size) return {};
  VALFS_ASSIGN(const BlobRef blob, open(inode, place));
  if (blob->failure) return tl::unexpected(*blob->failure);
  const uint64_t end = offset + std::min(length, place.size - offset);
  if (end == offset) return {};
  VALFS_TRY(check_edges(*blob, offset, end, place.size));
  VALFS_TRY(mark(*blob, offset, end, place.size));
  note_undurable(*blob);
  note_overwritten(*blob, offset, end);
  VALFS_TRY(blob->file->punch(offset, end - offset));
  return append_written(*blob, offset, end - offset, place.size, now);
}

}  // namespace valfs::blob
