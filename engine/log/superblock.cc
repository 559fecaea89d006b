#include "engine/log/superblock.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/base/crc32c.h"

namespace valfs::log {
namespace {

constexpr uint64_t kCopies = kSuperblockCopies;
constexpr size_t kCrcBytes = offsetof(Superblock, crc);
constexpr uint32_t kKnownIncompat = 0;

std::vector<std::byte> block_of(const Superblock& superblock) {
  std::vector<std::byte> block(kBlock);
  std::memcpy(block.data(), &superblock, sizeof superblock);
  return block;
}

// Two copies at a time, so that a power cut in between leaves two whole ones.
Status write_copies(storage::File& file, const Superblock& superblock) {
  const auto block = block_of(superblock);
  for (uint64_t copy = 0; copy < kCopies; copy++) {
    VALFS_TRY(file.write(copy * kBlock, block));
    if (copy % 2 == 1) VALFS_TRY(file.sync());
  }
  return {};
}

void seal(Superblock& superblock) {
  superblock.generation++;
  superblock.crc = crc32c(bytes_of(superblock).first(kCrcBytes));
}

}  // namespace

std::optional<uint64_t> Superblock::cut_of(FileId file) const {
  for (uint32_t i = 0; i < cut_count; i++) {
    if (cuts[i].file == file) return cuts[i].offset;
  }
  return std::nullopt;
}

void Superblock::set_boot_id(const std::string& id) {
  boot_id = {};
  std::copy_n(id.begin(), std::min(id.size(), boot_id.size() - 1), boot_id.begin());
}

bool Superblock::boot_id_is(const std::string& id) const {
  return id.substr(0, boot_id.size() - 1) == boot_id.data();
}

std::optional<Superblock> SuperblockCopies::newest() const {
  std::optional<Superblock> newest;
  for (const auto& copy : copies) {
    if (copy && (!newest || copy->generation > newest->generation)) newest = copy;
  }
  return newest;
}

SuperblockCopies read_superblock_copies(storage::File& file) {
  SuperblockCopies result;
  for (uint64_t copy = 0; copy < kCopies; copy++) {
    std::vector<std::byte> block(kBlock);
    const auto got = file.read(copy * kBlock, block);
    if (!got || *got < sizeof(Superblock)) continue;
    Superblock superblock;
    std::memcpy(&superblock, block.data(), sizeof superblock);
    if (superblock.magic != Superblock::kMagic) continue;
    result.ours = true;
    if (superblock.crc != crc32c(bytes_of(superblock).first(kCrcBytes))) continue;
    result.copies[copy] = superblock;
  }
  return result;
}

Result<Superblock> read_superblock(storage::Storage& storage) {
  VALFS_ASSIGN(auto file, storage.open(kSuperblockPath, storage::OpenMode::kRead));
  const SuperblockCopies copies = read_superblock_copies(*file);
  const std::optional<Superblock> newest = copies.newest();
  if (!newest) {
    return fail(EINVAL, copies.ours ? "super: every copy of the superblock is damaged; "
                                      "`valfs fsck --repair` can rebuild it from the log"
                                    : "super: not the superblock of a valfs volume; if it was "
                                      "one, `valfs fsck --repair` can rebuild it from the log");
  }
  if (newest->version != kFormatVersion || (newest->incompat & ~kKnownIncompat) != 0) {
    return fail(EINVAL, "super: this volume needs a newer valfs (format " +
                            std::to_string(newest->version) + ")");
  }
  if (newest->cut_count > Superblock::kMaxCuts) return fail(EINVAL, "super: bad count of cuts");
  return *newest;
}

Status write_superblock(storage::Storage& storage, Superblock& superblock) {
  VALFS_ASSIGN(auto file, storage.open(kSuperblockPath, storage::OpenMode::kReadWrite));
  // A daemon that was killed here may have left copies in the page cache only: the two that are not
  // written first have to be on the disk before.
  VALFS_TRY(file->sync());
  seal(superblock);
  return write_copies(*file, superblock);
}

Status create_superblock(storage::Storage& storage, Superblock& superblock) {
  const std::string temporary = std::string(kSuperblockPath) + ".new";
  if (auto removed = storage.remove(temporary); !removed && removed.error().code != ENOENT) {
    return removed;
  }
  VALFS_ASSIGN(auto file, storage.open(temporary, storage::OpenMode::kCreate));
  seal(superblock);
  VALFS_TRY(write_copies(*file, superblock));
  VALFS_TRY(storage.rename(temporary, kSuperblockPath));
  return storage.sync_directory("");
}

}  // namespace valfs::log
