// Volumes in which the cleaner has compressed what it could.
#pragma once

#include <map>
#include <string>

#include "engine/log/compression.h"
#include "tests/support/sim_store.h"

namespace valfs::test {

// The compressible half of what pattern() gives, and the other half.
constexpr uint64_t compressible(uint64_t seed) {
  return seed * kCompressibleSeeds;
}
constexpr uint64_t noise(uint64_t seed) {
  return seed * kCompressibleSeeds + 1;
}

// small_options(), or such that values up to 4 MiB stay in the log.
StoreOptions compressing_options(Compression compression, const FakeClock& clock = {});
StoreOptions large_compressing_options(Compression compression, const FakeClock& clock = {});

// Makes garbage in the log files where everything lies, and cleans them.
Status clean_all(Store& store);

// How much of a value is compressed, and whether all that is not is known to be incompressible.
enum class Stored { kPlain, kPartly, kCompressed };
Stored how_stored(const Store& store, const std::string& path);
// The runs of a value.
std::vector<index::Extent> extents_of(const Store& store, const std::string& path);

using Values = std::map<std::string, Bytes>;
// "" if the store holds just these, and its index is as it should be.
std::string check_values(Store& store, const Values& values);

}  // namespace valfs::test
