// The bytes of one file on the simulated disk: those a read sees, and those that power loss may
// leave. sim_disk.h tells the rules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/storage/sim_random.h"

namespace valfs::storage {

// Copies share the sectors' images, which never change.
class SimContent {
 public:
  explicit SimContent(size_t sector_size);

  uint64_t size() const { return size_; }
  uint64_t allocated() const { return allocated_ * sector_size_; }
  // What a write there would add to allocated().
  uint64_t growth(uint64_t offset, uint64_t length) const;
  size_t read(uint64_t offset, std::span<std::byte> into) const;

  void write(uint64_t offset, std::span<const std::byte> from);
  void write_synced(uint64_t offset, std::span<const std::byte> from);  // whole sectors
  // Some of the sectors only. Whole sectors.
  void write_some(uint64_t offset, std::span<const std::byte> from, SimRandom& random);
  void resize(uint64_t size);
  void punch(uint64_t offset, uint64_t length);

  void sync();
  // Afterwards each sector is durable or never will be, though reads see it: the kernel marks pages
  // clean even where writing them back has failed.
  void sync_in_vain(SimRandom& random);

  bool all_durable() const;
  SimContent after_power_loss(SimRandom& random) const;

  // Changes the bytes on the disk and in memory. Within the size.
  void damage(uint64_t offset, std::span<const std::byte> bytes);

 private:
  using Image = std::shared_ptr<const std::vector<std::byte>>;  // null: a hole

  struct Sector {
    Image visible;                // what a read sees
    Image durable;                // what it was when it was last synced
    std::vector<Image> unsynced;  // what was written since, oldest first
  };

  // Calls `visit(sector index, offset in the sector, offset in the range, length)` for each sector
  // of the range.
  template <class Visit>
  void for_each_piece(uint64_t offset, uint64_t length, Visit visit) const;

  Sector& sector(uint64_t index);
  Image image(uint64_t index) const;
  Image patched(const Image& image, size_t within, std::span<const std::byte> bytes) const;
  void show(Sector& sector, Image image);
  void put(uint64_t index, Image image);
  void zero(uint64_t offset, uint64_t length);
  void grow(uint64_t size);

  size_t sector_size_;
  Image zeros_;  // shared by all sectors that hold zeros, which files filled ahead are made of
  std::vector<Sector> sectors_;
  uint64_t allocated_ = 0;  // sectors
  uint64_t size_ = 0;
  uint64_t durable_size_ = 0;
  std::vector<uint64_t> unsynced_sizes_;  // oldest first
};

}  // namespace valfs::storage
