// Manifests, footers, and chunk sums.
#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/blob/chunk_sums.h"
#include "engine/log/footer.h"
#include "engine/log/manifest.h"
#include "engine/storage/sim_disk.h"
#include "tests/fuzz/crcs.h"

namespace {

using namespace valfs;

// A file that ends with blocks which may be a footer, their CRCs made right.
void read_some_footer(fuzz::Input& input) {
  const log::Salt salt{1, 2, 3};
  std::vector<std::byte> bytes = input.bytes(input.below(3) * log::kBlock);
  bytes.resize(bytes.size() / log::kBlock * log::kBlock);
  const uint64_t start = 2 * log::kBlock;
  for (uint64_t at = 0; at < bytes.size(); at += log::kBlock) {
    const auto block = std::span(bytes).subspan(at, log::kBlock);
    const uint32_t crc = log::salted_crc(salt, start + at, block.subspan(sizeof(uint32_t)));
    std::memcpy(block.data(), &crc, sizeof crc);
  }
  storage::SimDisk disk({});
  const auto file = disk.open("file", storage::OpenMode::kCreate);
  VALFS_CHECK(file && (*file)->write(start, bytes));
  if (const auto footer = log::read_footer(**file, salt, start + bytes.size())) {
    VALFS_CHECK(footer->end == start);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace valfs;
  fuzz::Input input(data, size);
  const auto body = input.bytes(input.below(512));
  const log::Manifest manifest(input.take<uint64_t>(), input.take<uint64_t>(),
                               input.take<uint32_t>(), body);
  for (int i = 0; i < 4; i++) {
    const auto file = input.take<uint32_t>();
    if (const auto begin = manifest.begin_of(file); begin && manifest.group() != 0) {
      VALFS_CHECK(manifest.freed(file, *begin) && !manifest.freed(file, *begin + log::kBlock));
      VALFS_CHECK(!manifest.gone(file));
    }
  }
  read_some_footer(input);
  blob::ChunkSums sums;
  while (!input.empty()) {
    const uint64_t chunk = input.below(1 << 20);
    const auto sum = input.take<uint32_t>();
    if (sum % 5 == 0) {
      sums.truncate(chunk);
      VALFS_CHECK(sums.get(chunk) == 0);
    } else {
      sums.set(chunk, sum);
      VALFS_CHECK(sums.get(chunk) == sum);
    }
  }
  for (const auto& [first, values] : sums.ranges()) {
    VALFS_CHECK(std::find(values.begin(), values.end(), 0u) == values.end());
    VALFS_CHECK(sums.range(first, values.size()) == values);
  }
  return 0;
}
