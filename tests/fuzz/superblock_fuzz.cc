// Superblocks: any copies, mixed.
#include "engine/log/superblock.h"

#include "engine/base/check.h"
#include "engine/storage/sim_disk.h"
#include "tests/fuzz/crcs.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace valfs;
  fuzz::Input input(data, size);
  const auto fixed = input.take<uint8_t>();  // one bit for each copy
  const auto length = input.below(5 * log::kBlock);
  std::vector<std::byte> bytes = input.rest();
  bytes.resize(length);
  for (size_t copy = 0; (copy + 1) * log::kBlock <= bytes.size() && copy < 8; copy++) {
    if ((fixed >> copy & 1) == 0) continue;
    fuzz::fix_superblock(std::span(bytes).subspan(copy * log::kBlock, log::kBlock));
  }
  storage::SimDisk disk({});
  const auto file = disk.open(log::kSuperblockPath, storage::OpenMode::kCreate);
  VALFS_CHECK(file && (*file)->write(0, bytes));
  auto superblock = log::read_superblock(disk);
  if (!superblock) return 0;
  for (log::FileId id = 0; id < 4; id++) (void)superblock->cut_of(id);
  (void)superblock->boot_id_is("boot");
  VALFS_CHECK(log::write_superblock(disk, *superblock).has_value());
  const auto again = log::read_superblock(disk);
  VALFS_CHECK(again && again->generation == superblock->generation);
  return 0;
}
