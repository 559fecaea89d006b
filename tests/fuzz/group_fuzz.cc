// Groups, records, and the search for records after damage.
#include <cstring>

#include "engine/base/check.h"
#include "tests/fuzz/crcs.h"

namespace valfs::fuzz {
namespace {

constexpr log::Salt kSalt{0x1234, 7, 3};
constexpr uint64_t kOffset = 3 * log::kBlock;

// What is found lies inside the bytes.
void check(std::span<const std::byte> bytes, const log::GroupContents::Entry& entry) {
  const log::FoundRecord& found = entry.found;
  const auto inside = [&](const auto* data, size_t size) {
    const auto* begin = reinterpret_cast<const std::byte*>(data);
    return size == 0 || (begin >= bytes.data() && begin + size <= bytes.data() + bytes.size());
  };
  VALFS_CHECK(entry.offset + uint64_t{found.meta_length} <= bytes.size());
  VALFS_CHECK(inside(found.record.body.data(), found.record.body.size()));
  VALFS_CHECK(inside(found.record.name.data(), found.record.name.size()));
  VALFS_CHECK(inside(found.record.payload.data(), found.record.payload.size()));
  VALFS_CHECK(!entry.payload_good || found.record.payload.size() == found.payload_length);
  (void)log::youngest_object(found.record);
}

void read(std::span<const std::byte> image) {
  if (const auto header = log::decode_group_header(image, kSalt, kOffset)) {
    const auto contents = log::read_group(image, *header, kSalt, kOffset);
    for (const auto& entry : contents.records) check(image, entry);
  }
  for (const auto& entry : log::find_records(image, kSalt, kOffset)) check(image, entry);
  (void)log::plausible_meta_length(image);
}

}  // namespace
}  // namespace valfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace valfs::fuzz;
  std::vector<std::byte> image(size);
  if (size > 0) std::memcpy(image.data(), data, size);
  read(image);
  fix_group(image, kSalt, kOffset);
  read(image);
  return 0;
}
