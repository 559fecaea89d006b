#include <algorithm>

#include "engine/blob/blobs.h"
#include "engine/inspect/check.h"
#include "engine/log/payload_reader.h"

namespace valfs::inspect {
namespace {

constexpr size_t kSumSize = sizeof(uint32_t);

// The sums as the log has them. A run that cannot be read is told, and counts as unchecked.
blob::ChunkSums read_sums(const DryVolume& volume, log::ObjectId id,
                          const std::function<void(log::Position)>& damaged) {
  blob::ChunkSums sums;
  const auto inode = volume.index->find(id);
  if (inode == nullptr) return sums;
  for (const index::Extent& extent : inode->extents().all()) {
    std::vector<uint32_t> run(extent.length / kSumSize);
    const log::LogFileRef file = volume.files.find(extent.record.file());
    if (!file || !log::read_payload(*file, volume.files.salt(*file), extent, 0,
                                    std::as_writable_bytes(std::span(run)))) {
      damaged(extent.record);
      continue;
    }
    for (size_t i = 0; i < run.size(); i++) sums.set(extent.offset / kSumSize + i, run[i]);
  }
  return sums;
}

// What was written since the blob was last known to be durable may be missing after a crash: the
// next mount goes back to what is whole.
uint64_t believed_from(const DryVolume& volume, const index::Inode& inode) {
  const auto tail = volume.recovered.blobs.find(inode.id);
  if (tail == volume.recovered.blobs.end() || tail->second.written.empty()) return UINT64_MAX;
  uint64_t from = tail->second.synced ? tail->second.synced_size : UINT64_MAX;
  for (const auto& [begin, end] : tail->second.written) from = std::min(from, begin);
  return from / kValueChunk * kValueChunk;
}

}  // namespace

void check_blob(storage::Storage& storage, const DryVolume& volume, const index::Inode& inode,
                const std::function<bool(uint64_t)>& paced,
                const std::function<void(Finding)>& add) {
  const uint64_t size = inode.attributes.size;
  Finding finding;
  finding.inode = inode.id;
  finding.kind = "blob";
  finding.file = blob::blob_path(inode.attributes.blob);
  const auto file = storage.open(finding.file, storage::OpenMode::kRead);
  if (!file) {
    finding.what = file.error().code == ENOENT ? "its file in bin/ is missing"
                                               : "its file in bin/: " + file.error().what;
    finding.next = "put the file back from a copy of the data directory, or delete the value";
    return add(finding);
  }
  const uint64_t unsure = believed_from(volume, inode);
  const auto info = (*file)->info();
  if (info && info->size < size) {
    finding.severity = unsure < size ? Finding::Severity::kNote : Finding::Severity::kError;
    finding.what = "its file in bin/ has " + std::to_string(info->size) + " of " +
                   std::to_string(size) + " bytes";
    finding.next = unsure < size ? "the next mount falls back to what had reached the disk"
                                 : "put the file back from a copy of the data directory";
    add(finding);
  }
  const auto sums = read_sums(volume, inode.attributes.blob, [&](log::Position record) {
    Finding lost = finding;
    lost.severity = Finding::Severity::kError;
    lost.kind = "blob-sums";
    lost.what = "chunk sums of it are damaged";
    lost.next = "copy the value, if it can still be read, and delete it";
    locate(lost, record);
    add(lost);
  });
  // Chunks without a sum are holes, or wait for one: there is nothing to check them against.
  std::vector<std::pair<uint64_t, uint32_t>> summed;
  for (const auto& [first, run] : sums.ranges()) {
    for (size_t i = 0; i < run.size(); i++) summed.emplace_back((first + i) * kValueChunk, run[i]);
  }
  std::vector<std::byte> bytes(kValueChunk);
  for (const auto& [begin, sum] : summed) {
    if (begin >= size) break;
    const auto chunk = std::span(bytes).first(std::min(kValueChunk, size - begin));
    const auto got = (*file)->read(begin, chunk);
    if (got) std::fill(chunk.begin() + static_cast<ptrdiff_t>(*got), chunk.end(), std::byte{0});
    const bool good = got && sum == blob::chunk_sum(chunk);
    if (!good) {
      const bool tail = begin >= unsure;
      finding.severity = tail ? Finding::Severity::kNote : Finding::Severity::kError;
      finding.offset = begin;
      finding.length = chunk.size();
      finding.what = !got ? "the disk cannot read a chunk of its file: " + got.error().what
                          : "a chunk of its file does not match its sum";
      finding.next = tail ? "the next mount falls back to what had reached the disk"
                          : "write the value anew or delete it; `valfs salvage` writes out what is "
                            "left of it";
      add(finding);
    }
    if (!paced(chunk.size())) return;
  }
}

}  // namespace valfs::inspect
