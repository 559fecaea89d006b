#include "engine/log/superblock.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/base/crc32c.h"
#include "engine/base/planted.h"

namespace valfs::log {
namespace {

constexpr uint64_t kCopies = kSuperblockCopies;
constexpr uint64_t kPairs = kCopies / 2;
constexpr size_t kCrcBytes = offsetof(Superblock, crc);
constexpr uint32_t kKnownIncompat = Superblock::kCompressedRecords;

std::vector<std::byte> block_of(const Superblock& superblock) {
  std::vector<std::byte> block(kBlock);
  std::memcpy(block.data(), &superblock, sizeof superblock);
  return block;
}

// The copy of that number, if it is whole; `ours` becomes true if it is one at all.
std::optional<Superblock> read_copy(storage::File& file, uint64_t copy, bool& ours) {
  std::vector<std::byte> block(kBlock);
  const auto got = file.read(copy * kBlock, block);
  if (!got || *got < sizeof(Superblock)) return std::nullopt;
  Superblock superblock;
  std::memcpy(&superblock, block.data(), sizeof superblock);
  if (superblock.magic != Superblock::kMagic) return std::nullopt;
  ours = true;
  const bool whole = superblock.crc == crc32c(bytes_of(superblock).first(kCrcBytes));
  if (!whole && !planted(Bug::kSuperblockUnchecked)) return std::nullopt;
  return superblock;
}

bool has_whole_copy(storage::File& file, uint64_t pair) {
  bool ours = false;
  return read_copy(file, pair * 2, ours) || read_copy(file, pair * 2 + 1, ours);
}

// Two copies at a time, so that a power cut in between leaves two whole ones: `first` is the pair
// to begin with.
Status write_copies(storage::File& file, const Superblock& superblock, uint64_t first) {
  const auto block = block_of(superblock);
  for (uint64_t i = 0; i < kPairs; i++) {
    const uint64_t pair = (first + i) % kPairs;
    VALFS_TRY(file.write(pair * 2 * kBlock, block));
    VALFS_TRY(file.write((pair * 2 + 1) * kBlock, block));
    if (planted(Bug::kSuperblockOneSync) && i + 1 < kPairs) continue;
    VALFS_TRY(file.sync());
  }
  return {};
}

void seal(Superblock& superblock) {
  superblock.generation++;
  superblock.crc = crc32c(bytes_of(superblock).first(kCrcBytes));
}

}  // namespace

bool Superblock::is_from_a_newer_version() const {
  return version != kFormatVersion || (incompat & ~kKnownIncompat) != 0;
}

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
  for (uint64_t copy = 0; copy < (planted(Bug::kSuperblockOneCopy) ? 1 : kCopies); copy++) {
    result.copies[copy] = read_copy(file, copy, result.ours);
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
  if (newest->is_from_a_newer_version()) {
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
  // A power cut may have torn the last pair: then the first is all there is.
  const uint64_t first = has_whole_copy(*file, 1) || planted(Bug::kSuperblockFirstPair) ? 0 : 1;
  seal(superblock);
  return write_copies(*file, superblock, first);
}

Status create_superblock(storage::Storage& storage, Superblock& superblock) {
  const std::string temporary = std::string(kSuperblockPath) + ".new";
  if (auto removed = storage.remove(temporary); !removed && removed.error().code != ENOENT) {
    return removed;
  }
  VALFS_ASSIGN(auto file, storage.open(temporary, storage::OpenMode::kCreate));
  seal(superblock);
  VALFS_TRY(write_copies(*file, superblock, 0));
  VALFS_TRY(storage.rename(temporary, kSuperblockPath));
  if (planted(Bug::kSuperblockWithoutName)) return {};
  return storage.sync_directory("");
}

}  // namespace valfs::log
