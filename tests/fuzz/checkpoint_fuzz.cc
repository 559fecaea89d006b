// Checkpoints: pages, and what they put into the index.
#include "engine/checkpoint/checkpoint.h"

#include "engine/base/check.h"
#include "engine/storage/sim_disk.h"
#include "tests/fuzz/crcs.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace valfs;
  fuzz::Input input(data, size);
  const bool fix = input.take<uint8_t>() % 4 != 0;
  std::vector<std::byte> bytes = input.rest();
  if (fix) fuzz::fix_checkpoint(bytes);
  storage::SimDisk disk({});
  VALFS_CHECK(disk.make_directory("checkpoint").has_value());
  const auto file = disk.open(checkpoint::checkpoint_path(0), storage::OpenMode::kCreate);
  VALFS_CHECK(file && (*file)->write(0, bytes));
  index::Index index;
  const auto moment = checkpoint::read_checkpoint(disk, log::VolumeId{}, 0, index);
  if (!moment) return 0;
  index.for_each_name([&](const index::Name& name) { (void)index.path_of(name.inode); });
  index.for_each_inode([&](const index::Inode& inode) { (void)index.path_of(inode.id); });
  (void)index.unsound();
  index.clear();
  return 0;
}
