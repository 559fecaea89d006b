// How the sums of a blob's chunks follow its bytes. The order of writes is in engine/README.md.
#include <algorithm>
#include <cstring>

#include "engine/base/crc32c.h"
#include "engine/base/planted.h"
#include "engine/blob/blobs.h"

namespace valfs::blob {
namespace {

constexpr uint64_t kRegion = 1024;  // chunks that are marked together: 64 MiB
constexpr size_t kSumSize = sizeof(uint32_t);
constexpr std::chrono::seconds kQuiet{2};

uint64_t chunks_of(uint64_t size) {
  return (size + kValueChunk - 1) / kValueChunk;
}

std::span<const std::byte> as_bytes(const std::vector<uint32_t>& sums) {
  return std::as_bytes(std::span(sums));
}

}  // namespace

void Blobs::set_dirty(Blob& blob, uint64_t chunk) {
  blob.sums.set(chunk, 0);
  blob.dirty.insert(chunk);
  blob.unsummed = true;
}

// A sum that the next append to the log will bring.
void Blobs::set_sum(Blob& blob, uint64_t chunk, uint32_t sum) {
  blob.sums.set(chunk, sum);
  if (blob.marked.count(chunk / kRegion) > 0) blob.resummed.insert(chunk);
}

// Chunks that are overwritten in part lose their sums: what stays of them is checked before.
Status Blobs::check_edges(Blob& blob, uint64_t begin, uint64_t end, uint64_t size) {
  if (planted(Bug::kOverwriteUnread)) return {};
  const uint64_t first = begin / kValueChunk;
  const uint64_t last = (end - 1) / kValueChunk;
  const bool last_in_part = end % kValueChunk != 0 && end != size;
  if (begin % kValueChunk != 0 || (first == last && last_in_part)) {
    VALFS_TRY(read_chunk(blob, first, size));
  }
  if (first != last && last_in_part) VALFS_TRY(read_chunk(blob, last, size));
  return {};
}

// Before the first byte of a summed chunk changes, the log says, durably, that it is unchecked.
Status Blobs::mark(Blob& blob, uint64_t begin, uint64_t end, uint64_t size) {
  bool marked_any = false;
  for (uint64_t chunk = begin / kValueChunk; chunk * kValueChunk < end; chunk++) {
    const uint64_t region = chunk / kRegion;
    const bool marked = blob.marked.count(region) > 0 && blob.resummed.count(chunk) == 0;
    if (blob.sums.get(chunk) == 0 || marked) continue;
    // Without sums nothing would tell whether what was appended has reached the disk.
    if (blob.undurable && size > blob.durable_size) VALFS_TRY(flush(blob.inode));
    const uint64_t first = region * kRegion;
    const std::vector<uint32_t> zeros(std::min(kRegion, chunks_of(size) - first));
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(core_, Transaction::Size::of(1, 0, zeros.size() * kSumSize)));
    VALFS_TRY(still_names(transaction, blob.inode, blob.id));
    transaction.write_sums(blob.id, first * kSumSize, as_bytes(zeros));
    transaction.commit({});
    blob.marked.insert(region);
    blob.resummed.erase(blob.resummed.lower_bound(first),
                        blob.resummed.lower_bound(first + kRegion));
    marked_any = true;
  }
  if (planted(Bug::kOverwriteUnmarked)) return {};
  return marked_any ? core_.writer->sync() : Status{};
}

void Blobs::note_overwritten(Blob& blob, uint64_t begin, uint64_t end) {
  for (uint64_t chunk = begin / kValueChunk; chunk * kValueChunk < end; chunk++) {
    set_dirty(blob, chunk);
    blob.last_overwrite = core_.now();
  }
}

// `bytes` follow the `covered` bytes of the chunk that its sum stands for.
void Blobs::extend_sum(Blob& blob, uint64_t chunk, uint64_t covered,
                       std::span<const std::byte> bytes) {
  const uint32_t old = covered == 0 ? 0 : blob.sums.get(chunk);
  // Unchecked, or a sum that stands for two CRCs: made anew later.
  if (covered != 0 && old <= 1) return set_dirty(blob, chunk);
  const uint32_t crc = crc32c(bytes, old);
  set_sum(blob, chunk, crc == 0 ? 1 : crc);
}

// `bytes`, which are in the file, go beyond its end at `size`: recovery tells by the sums whether
// they have reached the disk. False if a chunk cannot be summed, as the rest of it cannot be read.
bool Blobs::sum_appended(Blob& blob, uint64_t offset, std::span<const std::byte> bytes,
                         uint64_t size) {
  const uint64_t end = offset + bytes.size();
  const uint64_t tail = size / kValueChunk;
  bool all = true;
  for (uint64_t chunk = tail; chunk * kValueChunk < end; chunk++) {
    const uint64_t begin = chunk * kValueChunk;
    // Chunks of the hole between the old end and the new bytes stay without sums.
    if (chunk > tail && begin + kValueChunk <= offset) {
      chunk = offset / kValueChunk - 1;
      continue;
    }
    const uint64_t covered = size > begin ? size - begin : 0;
    const uint64_t length = std::min(kValueChunk, end - begin);
    if (offset >= size && (covered == 0 || blob.sums.get(chunk) > 1)) {
      const uint64_t from = std::min(std::max(offset, begin) - begin, kValueChunk);
      std::vector<std::byte> grown(length - covered);
      if (from < length) {
        std::memcpy(grown.data() + (from - covered), bytes.data() + (begin + from - offset),
                    length - from);
      }
      extend_sum(blob, chunk, covered, grown);
      continue;
    }
    std::vector<std::byte> whole(length);
    const auto got = blob.file->read(begin, whole);
    if (!got || *got != length) {
      set_dirty(blob, chunk);
      all = false;
      continue;
    }
    set_sum(blob, chunk, chunk_sum(whole));
  }
  return all;
}

// Sums what is dirty in a region, and unmarks it. If it fails, everything is as it was.
Status Blobs::sum_region(Blob& blob, uint64_t region, uint64_t size) {
  const uint64_t first = region * kRegion;
  const auto from = blob.dirty.lower_bound(first);
  const auto to = blob.dirty.lower_bound(first + kRegion);
  std::vector<uint32_t> sums;
  if (first < chunks_of(size)) {
    sums = blob.sums.range(first, std::min(kRegion, chunks_of(size) - first));
    for (auto chunk = from; chunk != to; ++chunk) {
      if (*chunk * kValueChunk >= size || sums[*chunk - first] != 0) continue;
      VALFS_ASSIGN(const auto bytes, read_chunk(blob, *chunk, size));
      sums[*chunk - first] = chunk_sum(bytes);
    }
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(core_, Transaction::Size::of(1, 0, sums.size() * kSumSize),
                                    log::LogWriter::Purpose::kReserve));
    if (auto there = still_names(transaction, blob.inode, blob.id); !there) {
      forget(blob.inode);
      return there;
    }
    transaction.write_sums(blob.id, first * kSumSize, as_bytes(sums));
    transaction.commit({});
  }
  for (size_t i = 0; i < sums.size(); i++) blob.sums.set(first + i, sums[i]);
  blob.dirty.erase(from, to);
  blob.marked.erase(region);
  blob.resummed.erase(blob.resummed.lower_bound(first), blob.resummed.lower_bound(first + kRegion));
  return {};
}

Status Blobs::sum_anew(log::ObjectId inode) {
  VALFS_ASSIGN(const Place place, place_of(inode));
  if (place.blob == 0) return {};
  VALFS_ASSIGN(const BlobRef blob, open(inode, place));
  if (blob->undurable || blob->failure || blob->dirty.empty()) return {};
  if (core_.options.background && core_.now() - blob->last_overwrite < kQuiet) return {};
  std::set<uint64_t> regions = blob->marked;
  for (const uint64_t chunk : blob->dirty) regions.insert(chunk / kRegion);
  for (const uint64_t region : regions) VALFS_TRY(sum_region(*blob, region, place.size));
  blob->unsummed = false;
  return {};
}

}  // namespace valfs::blob
