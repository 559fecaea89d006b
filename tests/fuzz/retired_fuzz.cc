// RETIRED bodies, and chunk sums.
#include <algorithm>

#include "engine/base/check.h"
#include "engine/blob/chunk_sums.h"
#include "engine/log/retired.h"
#include "tests/fuzz/crcs.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace valfs;
  fuzz::Input input(data, size);
  const auto body = input.bytes(input.below(512));
  log::Retired retired;
  retired.assign(body);
  // The list is sorted, and its intervals neither touch nor overlap.
  const auto intervals = retired.intervals();
  for (size_t i = 0; i < intervals.size(); i++) {
    VALFS_CHECK(intervals[i].first <= intervals[i].last);
    VALFS_CHECK(i == 0 || intervals[i - 1].last < intervals[i].first);
    VALFS_CHECK(retired.covers(intervals[i].first));
  }
  for (int i = 0; i < 4; i++) {
    const auto group = input.take<uint64_t>();
    VALFS_CHECK(retired.covers(group) == (retired.skip(group) != group));
  }
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
