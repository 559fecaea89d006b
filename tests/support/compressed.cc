#include "tests/support/compressed.h"

#include <algorithm>

namespace valfs::test {

StoreOptions compressing_options(Compression compression, const FakeClock& clock) {
  StoreOptions options = small_options(clock);
  options.compression = compression;
  return options;
}

StoreOptions large_compressing_options(Compression compression, const FakeClock& clock) {
  StoreOptions options = compressing_options(compression, clock);
  options.log_file_size = 16 * kMiB;
  options.slot_size = 4 * kMiB + 256 * kKiB;
  options.clean_slice = 8 * kMiB;
  options.checkpoint_after = 64 * kMiB;
  options.blob_threshold = 4 * kMiB;
  options.cache = 8 * kMiB;
  return options;
}

Status clean_all(Store& store) {
  // A file is worth cleaning once a few blocks of it are dead.
  const uint64_t filler = std::min<uint64_t>(store.options().blob_threshold, 30 * kKiB);
  for (int i = 0; i < 8; i++) {
    VALFS_TRY(put(store, "filler", pattern(noise(static_cast<uint64_t>(i)), filler)));
  }
  VALFS_TRY(remove(store, "filler"));
  VALFS_TRY(store.sync());
  const auto collected = store.gc();
  if (!collected) return tl::unexpected(collected.error());
  store.drop_caches();
  return {};
}

std::vector<index::Extent> extents_of(const Store& store, const std::string& path) {
  const log::ObjectId id = look_up(store, path);
  std::vector<index::Extent> extents;
  store.read_index([&](const index::Index& index) {
    const auto inode = index.find(id);
    if (inode == nullptr) return;
    extents.assign(inode->extents().all().begin(), inode->extents().all().end());
  });
  return extents;
}

Stored how_stored(const Store& store, const std::string& path) {
  const auto extents = extents_of(store, path);
  const auto compressed = std::count_if(extents.begin(), extents.end(),
                                        [](const auto& extent) { return extent.compressed != 0; });
  if (compressed == 0) return Stored::kPlain;
  return static_cast<size_t>(compressed) == extents.size() ? Stored::kCompressed : Stored::kPartly;
}

std::string check_values(Store& store, const Values& values) {
  for (const auto& [path, expected] : values) {
    const auto bytes = get(store, path);
    if (!bytes) return path + ": " + bytes.error().what;
    if (!same_bytes(*bytes, expected)) {
      const auto at = std::mismatch(bytes->begin(), bytes->end(), expected.begin(), expected.end());
      return path + " differs at byte " + std::to_string(at.first - bytes->begin()) + " of " +
             std::to_string(expected.size());
    }
  }
  return check_index(store);
}

}  // namespace valfs::test
