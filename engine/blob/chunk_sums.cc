#include "engine/blob/chunk_sums.h"

#include <algorithm>

#include "engine/base/crc32c.h"

namespace valfs::blob {

uint32_t chunk_sum(std::span<const std::byte> bytes) {
  const uint32_t crc = crc32c(bytes);
  return crc == 0 ? 1 : crc;
}

uint32_t ChunkSums::get(uint64_t chunk) const {
  const auto page = pages_.find(chunk / kPage);
  return page == pages_.end() ? 0 : page->second[chunk % kPage];
}

void ChunkSums::set(uint64_t chunk, uint32_t sum) {
  auto page = pages_.find(chunk / kPage);
  if (page == pages_.end()) {
    if (sum == 0) return;
    page = pages_.emplace(chunk / kPage, std::vector<uint32_t>(kPage)).first;
  }
  page->second[chunk % kPage] = sum;
}

void ChunkSums::truncate(uint64_t chunks) {
  pages_.erase(pages_.lower_bound((chunks + kPage - 1) / kPage), pages_.end());
  const auto page = pages_.find(chunks / kPage);
  if (page == pages_.end()) return;
  std::fill(page->second.begin() + static_cast<ptrdiff_t>(chunks % kPage), page->second.end(), 0);
}

std::vector<std::pair<uint64_t, std::vector<uint32_t>>> ChunkSums::ranges() const {
  std::vector<std::pair<uint64_t, std::vector<uint32_t>>> result;
  for (const auto& [number, page] : pages_) {
    for (uint64_t i = 0; i < kPage; i++) {
      if (page[i] == 0) continue;
      const uint64_t chunk = number * kPage + i;
      if (result.empty() || result.back().first + result.back().second.size() != chunk) {
        result.push_back({chunk, {}});
      }
      result.back().second.push_back(page[i]);
    }
  }
  return result;
}

std::vector<uint32_t> ChunkSums::range(uint64_t first, uint64_t count) const {
  std::vector<uint32_t> sums(count);
  for (uint64_t i = 0; i < count; i++) sums[i] = get(first + i);
  return sums;
}

}  // namespace valfs::blob
