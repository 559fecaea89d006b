// A whole volume with bytes changed, blocks moved, files cut or gone; with right and with wrong
// checksums. It may be refused, or lack something; it must neither crash nor hang nor eat memory,
// and what opens can be read, written, cleaned, unmounted and opened again.
#include <spdlog/spdlog.h>

#include <chrono>

#include "engine/base/check.h"
#include "tests/fuzz/crcs.h"
#include "tests/support/tree_model.h"

namespace valfs::fuzz {
namespace {

using storage::SimDisk;
using test::Action;

StoreOptions options() {
  StoreOptions options = test::small_options();
  options.slots = 2;
  options.slot_size = 40 * kKiB;
  options.log_file_size = 64 * kKiB;
  options.compression = Compression::kLz4;
  return options;
}

// Small; a checkpoint and a tail, staged groups, a large value, several log files.
std::unique_ptr<SimDisk> make_volume() {
  spdlog::set_level(spdlog::level::off);
  auto disk = std::make_unique<SimDisk>(storage::SimDiskOptions{.seed = 1});
  auto store = test::must_open(*disk, options());
  for (int i = 0; i < 6; i++) {
    const std::string name = "f" + std::to_string(i);
    VALFS_CHECK(test::put(*store, name, test::pattern(i % 2 == 0 ? 3 : 1, 700 * i)).has_value());
    VALFS_CHECK(test::write(*store, name, 100, test::pattern(2, 100)).has_value());
  }
  VALFS_CHECK(test::make_directory(*store, "d").has_value());
  VALFS_CHECK(test::rename(*store, "f1", "d/f1").has_value());
  VALFS_CHECK(test::put(*store, "large", test::pattern(3, 40'000)).has_value());
  VALFS_CHECK(store->sync().has_value());
  VALFS_CHECK(store->checkpoint().has_value());
  VALFS_CHECK(store->gc().has_value());
  VALFS_CHECK(test::remove(*store, "f2").has_value());
  VALFS_CHECK(test::link(*store, "f3", "d/l").has_value());
  VALFS_CHECK(test::truncate(*store, "f4", 10).has_value());
  VALFS_CHECK(test::append(*store, "large", test::pattern(4, 1000)).has_value());
  VALFS_CHECK(store->sync().has_value());
  VALFS_CHECK(test::append(*store, "f5", test::pattern(5, 100)).has_value());
  auto left = disk->clone_after_process_kill(1);
  store.reset();
  return left;
}

void fix(SimDisk& disk, const std::string& path) {
  auto bytes = *disk.contents(path);
  if (path.rfind("wal/", 0) == 0) fix_log_file(bytes);
  if (path.rfind("checkpoint/", 0) == 0) fix_checkpoint(bytes);
  if (path == "super") {
    for (size_t at = 0; at + log::kBlock <= bytes.size(); at += log::kBlock) {
      fix_superblock(std::span(bytes).subspan(at, log::kBlock));
    }
  }
  (void)disk.corrupt(path, 0, bytes);
}

void edit(SimDisk& disk, Input& input, bool fixing) {
  const auto files = disk.files();
  const std::string path = files[input.below(files.size())];
  const auto bytes = *disk.contents(path);
  if (bytes.empty()) return;
  const uint64_t offset = input.below(bytes.size());
  switch (input.below(8)) {
    case 0: {  // a block from elsewhere
      const auto source = *disk.contents(files[input.below(files.size())]);
      if (source.size() < log::kBlock || bytes.size() < log::kBlock) return;
      const uint64_t from = input.below(source.size() / log::kBlock) * log::kBlock;
      const uint64_t to = offset / log::kBlock * log::kBlock;
      if (to + log::kBlock > bytes.size()) return;
      (void)disk.corrupt(path, to, std::span(source).subspan(from, log::kBlock));
      break;
    }
    case 1: {  // zeros
      const uint64_t length = std::min<uint64_t>(log::kBlock, bytes.size() - offset);
      (void)disk.corrupt(path, offset, std::vector<std::byte>(length));
      break;
    }
    case 2:
      (void)disk.truncate(path, offset);
      break;
    case 3:
      if (input.below(4) == 0) {
        (void)disk.erase(path);
        return;
      }
      [[fallthrough]];
    default: {
      const auto some = input.bytes(1 + input.below(16));
      (void)disk.corrupt(path, offset,
                         std::span(some).first(std::min(some.size(), bytes.size() - offset)));
    }
  }
  if (fixing) fix(disk, path);
}

// Whoever reads values of a size from the disk believes it only so far.
void use(Store& store) {
  std::vector<std::pair<log::ObjectId, uint64_t>> values;
  store.read_index([&](const index::Index& index) {
    index.for_each_inode([&](const index::Inode& inode) {
      values.emplace_back(inode.id, inode.attributes.size);
      (void)index.path_of(inode.id);
      index.for_each_child(inode, [](const index::Name&) {});
    });
  });
  for (const auto& [inode, size] : values) {
    std::vector<std::byte> bytes(std::min<uint64_t>(size, 64 * kKiB));
    (void)store.read(inode, 0, bytes);
    if (size > bytes.size()) (void)store.read(inode, size - bytes.size(), bytes);
  }
  (void)test::put(store, "new", test::pattern(9, 2000));
  (void)test::append(store, "f0", test::pattern(9, 200));
  (void)test::append(store, "large", test::pattern(9, 200));
  (void)test::truncate(store, "large", 100);
  (void)test::remove(store, "f3");
  (void)store.sync();
  (void)store.gc();
  (void)store.stats();
}

void run(Input input) {
  static const std::unique_ptr<SimDisk> kVolume = make_volume();
  const auto flags = input.take<uint8_t>();
  const bool fixing = (flags & 3) != 0;
  const bool lost_power = (flags & 4) != 0;
  const auto disk =
      lost_power ? kVolume->clone_after_power_loss(1) : kVolume->clone_after_process_kill(1);
  for (int i = 0; i < 12 && !input.empty() && !disk->files().empty(); i++) {
    edit(*disk, input, fixing);
  }
  for (int mount = 0; mount < 2; mount++) {
    const auto store = test::open_store(*disk, options());
    if (!store) return;
    use(**store);
    if ((flags & 8) != 0) (void)(*store)->close();
  }
}

}  // namespace
}  // namespace valfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  valfs::fuzz::run({data, size});
  return 0;
}
