// The chunk sums of a blob in memory: CRC32C per 64 KiB, 0 = unchecked. Sparse, so that a file with
// a hole of exabytes costs nothing.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "engine/value/chunk.h"

namespace valfs::blob {

// CRC32C, with 0 set apart for "unchecked".
uint32_t chunk_sum(std::span<const std::byte> bytes);

class ChunkSums {
 public:
  uint32_t get(uint64_t chunk) const;
  void set(uint64_t chunk, uint32_t sum);
  void truncate(uint64_t chunks);

  // Runs of chunks that have sums, and those.
  std::vector<std::pair<uint64_t, std::vector<uint32_t>>> ranges() const;

  // `count` sums from `first` on, as they lie in the log.
  std::vector<uint32_t> range(uint64_t first, uint64_t count) const;

 private:
  static constexpr uint64_t kPage = 1024;
  std::map<uint64_t, std::vector<uint32_t>> pages_;
};

}  // namespace valfs::blob
