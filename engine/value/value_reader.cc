#include "engine/value/value_reader.h"

#include <algorithm>
#include <cstring>

#include "engine/log/payload_reader.h"
#include "engine/value/chunk.h"

namespace valfs {
namespace {

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
  for (size_t done = 0; done < into.size();) {
    const uint64_t at = offset + done;
    const uint64_t skip = at % kValueChunk;
    const size_t length = std::min<uint64_t>(into.size() - done, kValueChunk - skip);
    VALFS_TRY(read_chunk(id, at / kValueChunk, size, skip, into.subspan(done, length)));
    done += length;
  }
  return into.size();
}

Status ValueReader::read_chunk(log::ObjectId id, uint64_t chunk, uint64_t size, size_t skip,
                               std::span<std::byte> into) {
  if (const auto cached = core_.cache.read({id, chunk}, skip, into)) {
    // A chunk that was cached when the value ended in it: what follows is a hole.
    std::fill(into.begin() + static_cast<ptrdiff_t>(*cached), into.end(), std::byte{0});
    return {};
  }
  const uint64_t begin = chunk * kValueChunk;
  std::vector<std::byte> bytes(std::min(kValueChunk, size - begin));
  VALFS_ASSIGN(const Snapshot snapshot, read_range(id, begin, bytes));
  if (snapshot.parts.empty()) {  // a hole needs no cache
    std::fill(into.begin(), into.end(), std::byte{0});
    return {};
  }
  remember(id, chunk, snapshot.sequence, bytes);
  std::memcpy(into.data(), bytes.data() + skip, into.size());
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
