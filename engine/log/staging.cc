#include "engine/log/staging.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/crc32c.h"

namespace valfs::log {
namespace {

constexpr size_t kCrcBytes = offsetof(StagingHeader, crc);

}  // namespace

uint64_t Staging::bytes_needed(uint32_t slot_count, uint64_t slot_size) {
  return kBlock + slot_count * (kBlock + slot_size);
}

Staging::Staging(std::unique_ptr<storage::StagingMemory> memory, const VolumeId& volume,
                 Epoch epoch, uint32_t slot_count, uint64_t slot_size)
    : memory_(std::move(memory)), slot_count_(slot_count), slot_size_(slot_size) {
  VALFS_CHECK(slot_size % kBlock == 0);
  VALFS_CHECK(memory_->bytes().size() >= bytes_needed(slot_count, slot_size));
  for (uint32_t slot = 0; slot < slot_count; slot++) new (&header(slot)) SlotHeader{};
  StagingHeader head;
  head.volume = volume;
  head.epoch = epoch;
  head.slot_count = slot_count;
  head.slot_size = slot_size;
  head.crc = crc32c(bytes_of(head).first(kCrcBytes));
  std::memcpy(memory_->bytes().data(), &head, sizeof head);
}

std::byte* Staging::slot_start(uint32_t slot) {
  return memory_->bytes().data() + kBlock + slot * (kBlock + slot_size_);
}

SlotHeader& Staging::header(uint32_t slot) {
  return *reinterpret_cast<SlotHeader*>(slot_start(slot));
}

std::byte* Staging::image(uint32_t slot) {
  return slot_start(slot) + kBlock;
}

namespace {

// Seals what a slot holds, as the daemon would have.
Result<StagedGroup> read_slot(const SlotHeader& slot, std::span<const std::byte> image,
                              const VolumeId& volume, RecordSequence& next_record,
                              ObjectId& next_object) {
  const uint64_t committed = slot.committed.load(std::memory_order_acquire);
  if (committed < sizeof(GroupHeader) || committed > image.size()) {
    return fail(EINVAL, "staging slot of group " + std::to_string(slot.sequence) + ": bad length");
  }
  StagedGroup group;
  group.place = {{volume.salt(), slot.file, slot.epoch},
                 slot.offset,
                 slot.sequence,
                 slot.stream,
                 slot.previous_end,
                 slot.previous_crc};
  GroupSummary summary;
  uint64_t at = sizeof(GroupHeader);
  while (at < committed) {
    const auto found =
        decode(image.subspan(at, committed - at), group.place.salt, slot.offset + at);
    if (!found) {
      return fail(EINVAL, "staging slot of group " + std::to_string(slot.sequence) +
                              ": damaged record at byte " + std::to_string(at));
    }
    summary.add(found->record, found->crc, static_cast<uint32_t>(at));
    next_record = std::max(next_record, found->record.sequence + 1);
    next_object = std::max(next_object, youngest_object(found->record) + 1);
    at += found->total_length;
  }
  group.image.resize(group_length(committed, summary.record_count()));
  std::copy_n(image.begin(), committed, group.image.begin());
  group.record_count = summary.record_count();
  seal_group(group.image.data(), committed, summary, group.place, 0, next_record, next_object);
  return group;
}

}  // namespace

Result<std::vector<StagedGroup>> read_staging(std::span<const std::byte> memory,
                                              const VolumeId& volume, Epoch epoch,
                                              RecordSequence next_record, ObjectId next_object) {
  StagingHeader head;
  if (memory.size() < kBlock) return fail(EINVAL, "staging memory is too small");
  std::memcpy(&head, memory.data(), sizeof head);
  if (head.magic != StagingHeader::kMagic || head.crc != crc32c(bytes_of(head).first(kCrcBytes)) ||
      head.slot_size > memory.size() || head.slot_size % kBlock != 0 || head.slot_count > 1024 ||
      Staging::bytes_needed(head.slot_count, head.slot_size) > memory.size()) {
    return fail(EINVAL, "staging memory has no valid header");
  }
  if (head.volume != volume || head.epoch != epoch) {
    return fail(EINVAL, "staging memory belongs to another volume or an older mount");
  }
  std::vector<std::pair<GroupSequence, uint32_t>> used;
  const auto slot_at = [&](uint32_t slot) {
    return memory.subspan(kBlock + slot * (kBlock + head.slot_size), kBlock + head.slot_size);
  };
  const auto header_at = [&](uint32_t slot) -> const SlotHeader& {
    return *reinterpret_cast<const SlotHeader*>(slot_at(slot).data());
  };
  for (uint32_t slot = 0; slot < head.slot_count; slot++) {
    if (header_at(slot).committed.load(std::memory_order_acquire) != 0) {
      used.emplace_back(header_at(slot).sequence, slot);
    }
  }
  // A group that was being moved to another file may be in two slots, whole in both.
  std::sort(used.begin(), used.end(), [&](const auto& a, const auto& b) {
    return a.first != b.first ? a.first < b.first
                              : header_at(a.second).file > header_at(b.second).file;
  });
  used.erase(std::unique(used.begin(), used.end(),
                         [](const auto& a, const auto& b) { return a.first == b.first; }),
             used.end());
  std::vector<StagedGroup> groups;
  for (const auto& [sequence, slot] : used) {
    auto group =
        read_slot(header_at(slot), slot_at(slot).subspan(kBlock), volume, next_record, next_object);
    // What lies before a damaged slot is good, and what lies behind it cannot follow without it.
    if (!group) {
      spdlog::error("{}; it and {} later groups are lost", group.error().what,
                    used.size() - groups.size() - 1);
      break;
    }
    groups.push_back(std::move(*group));
  }
  return groups;
}

}  // namespace valfs::log
