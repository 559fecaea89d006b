#include "engine/storage/sim_content.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/check.h"

namespace valfs::storage {

SimContent::SimContent(size_t sector_size)
    : sector_size_(sector_size), zeros_(std::make_shared<std::vector<std::byte>>(sector_size)) {}

template <class Visit>
void SimContent::for_each_piece(uint64_t offset, uint64_t length, Visit visit) const {
  for (uint64_t done = 0; done < length;) {
    const uint64_t position = offset + done;
    const uint64_t within = position % sector_size_;
    const uint64_t piece = std::min<uint64_t>(sector_size_ - within, length - done);
    visit(position / sector_size_, within, done, piece);
    done += piece;
  }
}

uint64_t SimContent::growth(uint64_t offset, uint64_t length) const {
  uint64_t holes = 0;
  for_each_piece(offset, length, [&](uint64_t index, uint64_t, uint64_t, uint64_t) {
    if (!image(index)) ++holes;
  });
  return holes * sector_size_;
}

size_t SimContent::read(uint64_t offset, std::span<std::byte> into) const {
  const uint64_t length = offset < size_ ? std::min<uint64_t>(into.size(), size_ - offset) : 0;
  for_each_piece(offset, length,
                 [&](uint64_t index, uint64_t within, uint64_t done, uint64_t piece) {
                   const Image found = image(index);
                   const auto& bytes = found ? *found : *zeros_;
                   std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(within), piece,
                               into.begin() + static_cast<ptrdiff_t>(done));
                 });
  return length;
}

void SimContent::write(uint64_t offset, std::span<const std::byte> from) {
  for_each_piece(offset, from.size(),
                 [&](uint64_t index, uint64_t within, uint64_t done, uint64_t piece) {
                   put(index, patched(image(index), within, from.subspan(done, piece)));
                 });
  if (!from.empty()) grow(offset + from.size());
}

void SimContent::write_synced(uint64_t offset, std::span<const std::byte> from) {
  for_each_piece(offset, from.size(),
                 [&](uint64_t index, uint64_t within, uint64_t done, uint64_t piece) {
                   VALFS_CHECK(piece == sector_size_);
                   Sector& target = sector(index);
                   show(target, patched(nullptr, within, from.subspan(done, piece)));
                   target.durable = target.visible;
                   target.unsynced.clear();
                 });
  if (!from.empty()) grow(offset + from.size());
  durable_size_ = size_;
  unsynced_sizes_.clear();
}

void SimContent::write_some(uint64_t offset, std::span<const std::byte> from, SimRandom& random) {
  SimFate fate(random);
  for_each_piece(offset, from.size(), [&](uint64_t, uint64_t, uint64_t done, uint64_t piece) {
    if (fate.survivors(1) == 1) write(offset + done, from.subspan(done, piece));
  });
}

void SimContent::resize(uint64_t size) {
  if (size < size_) zero(size, size_ - size);
  size_ = size;
  unsynced_sizes_.push_back(size);
}

void SimContent::punch(uint64_t offset, uint64_t length) {
  if (offset < size_) zero(offset, std::min(length, size_ - offset));
}

void SimContent::sync() {
  for (Sector& each : sectors_) {
    if (each.unsynced.empty()) continue;
    each.durable = each.visible;
    each.unsynced.clear();
  }
  if (!unsynced_sizes_.empty()) durable_size_ = size_;
  unsynced_sizes_.clear();
}

void SimContent::sync_in_vain(SimRandom& random) {
  SimFate fate(random);
  for (Sector& each : sectors_) {
    if (each.unsynced.empty()) continue;
    const uint64_t survivors = fate.survivors(each.unsynced.size());
    if (survivors > 0) each.durable = each.unsynced[survivors - 1];
    each.unsynced.clear();
  }
  const uint64_t survivors = fate.survivors(unsynced_sizes_.size());
  if (survivors > 0) durable_size_ = unsynced_sizes_[survivors - 1];
  unsynced_sizes_.clear();
}

bool SimContent::all_durable() const {
  return size_ == durable_size_ && unsynced_sizes_.empty() &&
         std::all_of(sectors_.begin(), sectors_.end(), [](const Sector& each) {
           return each.unsynced.empty() && each.visible == each.durable;
         });
}

SimContent SimContent::after_power_loss(SimRandom& random) const {
  SimContent left(sector_size_);
  left.zeros_ = zeros_;
  SimFate fate(random);
  const uint64_t sizes = fate.survivors(unsynced_sizes_.size());
  left.size_ = sizes > 0 ? unsynced_sizes_[sizes - 1] : durable_size_;
  left.durable_size_ = left.size_;
  const uint64_t sectors = (left.size_ + sector_size_ - 1) / sector_size_;
  for (uint64_t index = 0; index < std::min<uint64_t>(sectors, sectors_.size()); ++index) {
    const Sector& each = sectors_[index];
    const uint64_t versions = fate.survivors(each.unsynced.size());
    Sector& survivor = left.sector(index);
    left.show(survivor, versions > 0 ? each.unsynced[versions - 1] : each.durable);
    survivor.durable = survivor.visible;
  }
  // What lies behind the end is never seen, not even when the file grows again.
  const uint64_t tail = left.size_ % sector_size_;
  if (tail != 0 && left.image(left.size_ / sector_size_)) {
    Sector& last = left.sector(left.size_ / sector_size_);
    left.show(last, patched(last.visible, tail, std::span<const std::byte>(*zeros_).subspan(tail)));
    last.durable = last.visible;
  }
  return left;
}

void SimContent::damage(uint64_t offset, std::span<const std::byte> bytes) {
  VALFS_CHECK(offset + bytes.size() <= size_);
  for_each_piece(offset, bytes.size(),
                 [&](uint64_t index, uint64_t within, uint64_t done, uint64_t piece) {
                   const auto part = bytes.subspan(done, piece);
                   Sector& target = sector(index);
                   show(target, patched(target.visible, within, part));
                   target.durable = patched(target.durable, within, part);
                   for (Image& each : target.unsynced) each = patched(each, within, part);
                 });
}

SimContent::Sector& SimContent::sector(uint64_t index) {
  if (index >= sectors_.size()) sectors_.resize(index + 1);
  return sectors_[index];
}

SimContent::Image SimContent::image(uint64_t index) const {
  return index < sectors_.size() ? sectors_[index].visible : nullptr;
}

// `image` with `bytes` in it from `within` on.
SimContent::Image SimContent::patched(const Image& image, size_t within,
                                      std::span<const std::byte> bytes) const {
  const bool zeros = bytes.size() <= zeros_->size() &&
                     std::memcmp(bytes.data(), zeros_->data(), bytes.size()) == 0;
  if (zeros && (!image || image == zeros_ || bytes.size() == sector_size_)) return zeros_;
  auto changed = std::make_shared<std::vector<std::byte>>(image ? *image : *zeros_);
  std::copy(bytes.begin(), bytes.end(), changed->begin() + static_cast<ptrdiff_t>(within));
  return changed;
}

void SimContent::show(Sector& sector, Image image) {
  if (sector.visible) --allocated_;
  if (image) ++allocated_;
  sector.visible = std::move(image);
}

void SimContent::put(uint64_t index, Image image) {
  Sector& target = sector(index);
  target.unsynced.push_back(image);
  show(target, std::move(image));
}

// Whole sectors become holes.
void SimContent::zero(uint64_t offset, uint64_t length) {
  for_each_piece(offset, length, [&](uint64_t index, uint64_t within, uint64_t, uint64_t piece) {
    const Image before = image(index);
    if (!before) return;
    // A sector that the file's end lies in goes whole, as there is nothing behind the end.
    const bool whole =
        within == 0 && index * sector_size_ + piece >= std::min(size_, (index + 1) * sector_size_);
    put(index, whole ? nullptr
                     : patched(before, within, std::span<const std::byte>(*zeros_).first(piece)));
  });
}

void SimContent::grow(uint64_t size) {
  if (size <= size_) return;
  size_ = size;
  unsynced_sizes_.push_back(size);
}

}  // namespace valfs::storage
