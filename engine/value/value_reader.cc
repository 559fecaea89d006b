#include "engine/value/value_reader.h"

#include <algorithm>
#include <cstring>

#include "engine/log/payload_reader.h"
#include "engine/value/chunk.h"

namespace valfs {
namespace {

constexpr uint64_t kLongestRead = 1 << 20;  // bytes

// The bytes of [begin, begin + length) that an extent holds: how far in, and how many.
struct Overlap {
  uint64_t skip;  // from the extent's start
  uint64_t at;    // from `begin`
  uint64_t length;
};

Overlap overlap(const index::Extent& extent, uint64_t begin, uint64_t length) {
  const uint64_t from = std::max(extent.offset, begin);
  const uint64_t to = std::min(extent.end(), begin + length);
  return {from - extent.offset, from - begin, to - from};
}

}  // namespace

Result<size_t> ValueReader::read(log::ObjectId id, uint64_t offset, std::span<std::byte> into) {
  uint64_t size;
  {
    const std::shared_lock lock(core_.state);
    const auto inode = core_.index.find(id);
    if (inode == nullptr) return fail(ENOENT, "no object " + std::to_string(id));
    if (inode->damaged) {
      return fail(EIO, core_.index.path_of(id) + ": a record of this value is lost");
    }
    size = inode->attributes.size;
  }
  if (offset >= size) return 0;
  into = into.first(std::min<uint64_t>(into.size(), size - offset));
  const uint64_t end = offset + into.size();
  const auto part = [&](uint64_t from, uint64_t to) {
    return into.subspan(from - offset, to - from);
  };
  uint64_t missing = offset;  // what lies from here to `at` is not cached, and is read at once
  for (uint64_t at = offset; at < end;) {
    const uint64_t next = std::min(end, (at / kValueChunk + 1) * kValueChunk);
    const auto bytes = part(at, next);
    const auto cached = core_.cache.read({id, at / kValueChunk}, at % kValueChunk, bytes);
    if (cached) {
      // A chunk that was cached when the value ended in it: what follows is a hole.
      std::fill(bytes.begin() + static_cast<ptrdiff_t>(*cached), bytes.end(), std::byte{0});
    }
    if (cached || next - missing >= kLongestRead) {
      const uint64_t to = cached ? at : next;
      VALFS_TRY(read_missing(id, size, missing, part(missing, to)));
      missing = next;
    }
    at = next;
  }
  VALFS_TRY(read_missing(id, size, missing, part(missing, end)));
  return into.size();
}

// Reads whole chunks, and remembers them.
Status ValueReader::read_missing(log::ObjectId id, uint64_t size, uint64_t begin,
                                 std::span<std::byte> into) {
  if (into.empty()) return {};
  const uint64_t first = begin / kValueChunk * kValueChunk;
  const uint64_t last = std::min(size, log::round_up(begin + into.size(), kValueChunk));
  std::vector<std::byte> bytes(last - first);
  VALFS_ASSIGN(const Snapshot snapshot, read_range(id, first, bytes));
  for (uint64_t at = first; at < last; at += kValueChunk) {
    const uint64_t end = std::min(last, at + kValueChunk);
    const bool hole = std::none_of(
        snapshot.parts.begin(), snapshot.parts.end(), [&](const Part& part) {
          return part.extent.offset < end && part.extent.end() > at;
        });
    if (hole) continue;  // needs no cache
    remember(id, at / kValueChunk, snapshot.sequence,
             std::span(bytes).subspan(at - first, end - at));
  }
  std::memcpy(into.data(), bytes.data() + (begin - first), into.size());
  return {};
}

Result<ValueReader::Snapshot> ValueReader::take_snapshot(log::ObjectId id, uint64_t begin,
                                                         std::span<std::byte> into) {
  Snapshot snapshot;
  const std::shared_lock lock(core_.state);
  const auto inode = core_.index.find(id);
  if (inode == nullptr) return fail(ENOENT, "no object " + std::to_string(id));
  snapshot.size = inode->attributes.size;
  snapshot.sequence = inode->sequence;
  for (const index::Extent& extent : inode->extents().overlapping(begin, begin + into.size())) {
    Part part{extent, core_.files.find(extent.record.file()), false};
    const Overlap range = overlap(extent, begin, into.size());
    // The slot may be sent and freed as soon as the lock is gone.
    part.done = read_slot(part, range.skip, into.subspan(range.at, range.length));
    snapshot.parts.push_back(std::move(part));
  }
  return snapshot;
}

// Copies out of a staging slot; false if the record is in none. Copies by the cleaner are there for
// a moment only, so that expanding them under the lock is rare.
bool ValueReader::read_slot(const Part& part, uint64_t skip, std::span<std::byte> into) const {
  const index::Extent& extent = part.extent;
  if (extent.compressed == 0) {
    return core_.writer->read(extent.record, extent.lead + skip, into);
  }
  if (!part.file) return false;
  const auto from_slot = [&](uint64_t from, uint64_t length) -> Result<std::vector<std::byte>> {
    std::vector<std::byte> bytes(length);
    if (!core_.writer->read(extent.record, from, bytes)) return fail(ENOENT, "in no slot");
    return bytes;
  };
  const log::Salt salt = core_.files.salt(*part.file);
  return log::read_compressed(from_slot, salt, extent, skip, into).has_value();
}

Status ValueReader::fill(const Snapshot& snapshot, uint64_t begin, std::span<std::byte> into) {
  for (const Part& part : snapshot.parts) {
    if (part.done) continue;
    const Overlap range = overlap(part.extent, begin, into.size());
    if (!part.file) {
      return fail(EIO, log::log_file_path(part.extent.record.file()) + " is missing");
    }
    VALFS_TRY(log::read_payload(*part.file, core_.files.salt(*part.file), part.extent, range.skip,
                                into.subspan(range.at, range.length)));
  }
  return {};
}

bool ValueReader::was_freed(const Snapshot& snapshot) const {
  return std::any_of(snapshot.parts.begin(), snapshot.parts.end(), [this](const Part& part) {
    const log::FileId id = part.extent.record.file();
    const log::LogFileRef now = core_.files.find(id);
    return !now || part.extent.record.offset() < core_.files.state_of(*now).begin;
  });
}

Result<ValueReader::Snapshot> ValueReader::read_range(log::ObjectId id, uint64_t begin,
                                                      std::span<std::byte> into) {
  for (;;) {
    VALFS_ASSIGN(Snapshot snapshot, take_snapshot(id, begin, into));
    const Status filled = fill(snapshot, begin, into);
    if (filled) return snapshot;
    // What was freed was copied before, and the index tells where to. What is still where it was is
    // damaged; so is what a lost file held.
    if (!was_freed(snapshot)) return tl::unexpected(filled.error());
    VALFS_ASSIGN(const Snapshot again, take_snapshot(id, begin, into));
    const bool moved = !std::equal(
        snapshot.parts.begin(), snapshot.parts.end(), again.parts.begin(), again.parts.end(),
        [](const Part& a, const Part& b) { return a.extent.record == b.extent.record; });
    if (!moved) return tl::unexpected(filled.error());
    std::fill(into.begin(), into.end(), std::byte{0});
  }
}

void ValueReader::remember(log::ObjectId id, uint64_t chunk, log::RecordSequence sequence,
                           std::span<const std::byte> bytes) {
  // Changes come under the exclusive lock and erase what is cached, so what is still unchanged here
  // cannot go stale unnoticed.
  const std::shared_lock lock(core_.state);
  const auto inode = core_.index.find(id);
  if (inode != nullptr && inode->sequence == sequence) core_.cache.insert({id, chunk}, bytes);
}

Status ValueReader::read_uncached(log::ObjectId id, uint64_t offset, std::span<std::byte> into) {
  std::fill(into.begin(), into.end(), std::byte{0});
  const auto read = read_range(id, offset, into);
  if (!read) return tl::unexpected(read.error());
  return {};
}

}  // namespace valfs
