// Staging slots that a dead daemon has left.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/log/staging.h"
#include "tests/fuzz/crcs.h"

namespace {

constexpr uint32_t kSlots = 2;
constexpr uint64_t kSlotSize = 2 * valfs::log::kBlock;

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace valfs;
  spdlog::set_level(spdlog::level::off);
  fuzz::Input input(data, size);
  log::VolumeId volume;
  log::StagingHeader head;
  const auto raw = input.take<uint8_t>();
  if ((raw & 1) != 0) {
    head = input.take<log::StagingHeader>();
  } else {
    head.slot_count = kSlots;
    head.slot_size = kSlotSize;
  }
  head.volume = volume;
  head.epoch = 1;
  std::vector<std::byte> memory(log::Staging::bytes_needed(kSlots, kSlotSize));
  std::memcpy(memory.data(), &head, sizeof head);
  fuzz::fix_staging_header(memory);
  for (uint32_t slot = 0; slot < kSlots; slot++) {
    const auto start = std::span(memory).subspan(log::kBlock + slot * (log::kBlock + kSlotSize));
    const auto header = input.bytes(sizeof(log::SlotHeader));
    std::memcpy(start.data(), header.data(), header.size());
    log::SlotHeader& placed = *reinterpret_cast<log::SlotHeader*>(start.data());
    const auto image = start.subspan(log::kBlock, kSlotSize);
    const auto bytes = input.bytes(std::min<uint64_t>(placed.committed % (kSlotSize + 1), size));
    std::copy(bytes.begin(), bytes.end(), image.begin());
    if ((raw & 2) != 0) continue;
    fuzz::fix_group(image, {volume.salt(), placed.file, placed.epoch}, placed.offset);
  }
  const auto groups = log::read_staging(memory, volume, 1, 1, 1);
  if (!groups) return 0;
  for (const auto& group : *groups) {
    const auto header = log::decode_group_header(group.image, group.place.salt, group.place.offset);
    VALFS_CHECK(header.has_value());
    VALFS_CHECK(
        log::read_group(group.image, *header, group.place.salt, group.place.offset).directory_good);
  }
  return 0;
}
