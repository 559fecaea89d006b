// Checks a blob beside its readers and writers.
#include "engine/blob/blobs.h"

namespace valfs::blob {

Status Blobs::scrub(log::ObjectId inode, const std::function<bool(uint64_t bytes)>& paced,
                    const std::function<void(uint64_t offset, const Error&)>& damaged) {
  // The chunks that have a sum now; those that come meanwhile are young.
  std::vector<uint64_t> chunks;
  {
    const std::shared_lock lock(core_.value_lock(inode));
    VALFS_ASSIGN(const Place place, place_of(inode));
    if (place.blob == 0) return {};
    VALFS_ASSIGN(const BlobRef blob, open(inode, place));
    for (const auto& [first, run] : blob->sums.ranges()) {
      for (size_t i = 0; i < run.size(); i++) chunks.push_back(first + i);
    }
  }
  for (const uint64_t chunk : chunks) {
    {
      const std::shared_lock lock(core_.value_lock(inode));
      const auto place = place_of(inode);
      if (!place || place->blob == 0 || chunk * kValueChunk >= place->size) return {};
      VALFS_ASSIGN(const BlobRef blob, open(inode, *place));
      const auto read = read_chunk(*blob, chunk, place->size);
      if (!read) damaged(chunk * kValueChunk, read.error());
    }
    if (!paced(kValueChunk)) return {};
  }
  return {};
}

}  // namespace valfs::blob
