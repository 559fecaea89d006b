#include "engine/value/value_reader.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
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

Result<std::optional<size_t>> ValueReader::read(const Find& find, uint64_t offset,
                                                std::span<std::byte> into, log::Wait wait) {
  VALFS_CHECK(into.size() <= kOneLook);
  VALFS_ASSIGN(const Look found, look_and_fill(find, offset, into, true, wait));
  if (found.in_blob) return std::nullopt;
  remember(found);
  for (const Run& run : found.runs) {
    if (run.own.size() == 0) continue;  // it was read to where it belongs
    const uint64_t from = std::max(run.begin, offset);
    const uint64_t to = std::min(run.end(), offset + found.bytes);
    std::memcpy(into.data() + (from - offset), run.into.data() + (from - run.begin), to - from);
  }
  return found.bytes;
}

Status ValueReader::read_uncached(log::ObjectId id, uint64_t offset, std::span<std::byte> into) {
  const auto find = [id](const index::Index& index) -> Result<index::Found<index::Inode>> {
    auto inode = index.find(id);
    if (inode == nullptr) return fail(ENOENT, "no object " + std::to_string(id));
    return inode;
  };
  const auto read = look_and_fill(find, offset, into, false, log::Wait::kForDisk);
  if (!read) return tl::unexpected(read.error());
  return {};
}

Result<ValueReader::Look> ValueReader::look_and_fill(const Find& find, uint64_t offset,
                                                     std::span<std::byte> into, bool cached,
                                                     log::Wait wait) {
  Look before;  // could not be filled, for this reason:
  Status filled;
  for (;;) {
    VALFS_ASSIGN(Look found, look(find, offset, into, cached));
    if (!filled && has_places_of(before, found)) return tl::unexpected(filled.error());
    filled = fill(found, wait);
    if (filled) return found;
    if (filled.error().code == EAGAIN) return tl::unexpected(filled.error());
    // What was freed was copied before, and the index tells where to. What is still where it was is
    // damaged; so is what a lost file held.
    if (!was_freed(found)) return tl::unexpected(filled.error());
    before = std::move(found);
  }
}

Result<ValueReader::Look> ValueReader::look(const Find& find, uint64_t offset,
                                            std::span<std::byte> into, bool cached) {
  Look found;
  const std::shared_lock lock(core_.state);
  VALFS_ASSIGN(const auto inode, find(core_.index));
  found.id = inode->id;
  found.sequence = inode->sequence;
  if (!cached) {
    plan(*inode, found.runs.emplace_back(Run{offset, into, {}, {}}));
    return found;
  }
  if (inode->attributes.blob != 0) {
    found.in_blob = true;
    return found;
  }
  if (inode->damaged) {
    return fail(EIO, core_.index.path_of(inode->id) + ": a record of this value is lost");
  }
  const uint64_t size = inode->attributes.size;
  if (offset >= size) return found;
  found.bytes = std::min<uint64_t>(into.size(), size - offset);
  look_in_cache(*inode, offset, into.first(found.bytes), found);
  for (Run& run : found.runs) plan(*inode, run);
  return found;
}

// Copies what is cached; what is not makes runs of whole chunks.
void ValueReader::look_in_cache(const index::Inode& inode, uint64_t offset,
                                std::span<std::byte> into, Look& found) {
  const uint64_t end = offset + into.size();
  const auto add_run = [&](uint64_t from, uint64_t to) {
    if (from == to) return;
    const uint64_t begin = from / kValueChunk * kValueChunk;
    const uint64_t behind = std::min(inode.attributes.size, log::round_up(to, kValueChunk));
    Run& run = found.runs.emplace_back();
    run.begin = begin;
    if (begin >= offset && behind <= end) {
      run.into = into.subspan(begin - offset, behind - begin);
    } else {
      run.own = Buffer(behind - begin);
      run.into = run.own.span();
    }
  };
  uint64_t missing = offset;  // what lies from here to `at` is not cached
  for (uint64_t at = offset; at < end;) {
    const uint64_t next = std::min(end, (at / kValueChunk + 1) * kValueChunk);
    const auto bytes = into.subspan(at - offset, next - at);
    const auto cached = core_.cache.read({inode.id, at / kValueChunk}, at % kValueChunk, bytes);
    if (cached) {
      // A chunk that was cached when the value ended in it: what follows is a hole.
      std::fill(bytes.begin() + static_cast<ptrdiff_t>(*cached), bytes.end(), std::byte{0});
      add_run(missing, at);
      missing = next;
    }
    at = next;
  }
  add_run(missing, end);
}

// Where the bytes of a run are to be found; those in staging slots are copied, as their slot may be
// sent and freed as soon as the lock is gone.
void ValueReader::plan(const index::Inode& inode, Run& run) const {
  uint64_t covered = 0;
  for (const index::Extent& extent : inode.extents().overlapping(run.begin, run.end())) {
    Part part{extent, core_.files.find(extent.record.file()), false};
    const Overlap range = overlap(extent, run.begin, run.into.size());
    // Extents are in order: what lies between two of them is a hole.
    std::ranges::fill(run.into.subspan(covered, range.at - covered), std::byte{0});
    covered = range.at + range.length;
    part.done = read_slot(part, range.skip, run.into.subspan(range.at, range.length));
    run.parts.push_back(std::move(part));
  }
  std::ranges::fill(run.into.subspan(covered), std::byte{0});
}

// Copies out of a staging slot; false if the record is in none. Copies by the cleaner are there for
// a moment only, so that expanding them under the lock is rare.
bool ValueReader::read_slot(const Part& part, uint64_t skip, std::span<std::byte> into) const {
  const index::Extent& extent = part.extent;
  if (extent.compressed == 0) {
    return core_.writer->read(extent.record, extent.lead + skip, into);
  }
  if (!part.file) return false;
  const auto from_slot = [&](uint64_t from, uint64_t length) -> Result<Buffer> {
    Buffer bytes(length);
    if (!core_.writer->read(extent.record, from, bytes.span())) return fail(ENOENT, "in no slot");
    return bytes;
  };
  const log::Salt salt = core_.files.salt(*part.file);
  return log::read_compressed(from_slot, salt, extent, skip, into).has_value();
}

Status ValueReader::fill(const Look& found, log::Wait wait) const {
  for (const Run& run : found.runs) {
    for (const Part& part : run.parts) {
      if (part.done) continue;
      const Overlap range = overlap(part.extent, run.begin, run.into.size());
      if (!part.file) {
        return fail(EIO, log::log_file_path(part.extent.record.file()) + " is missing");
      }
      VALFS_TRY(log::read_payload(*part.file, core_.files.salt(*part.file), part.extent, range.skip,
                                  run.into.subspan(range.at, range.length), wait));
    }
  }
  return {};
}

bool ValueReader::was_freed(const Look& found) const {
  const auto is_freed = [this](const Part& part) {
    const log::FileId id = part.extent.record.file();
    const log::LogFileRef now = core_.files.find(id);
    return !now || part.extent.record.offset() < core_.files.state_of(*now).begin;
  };
  return std::ranges::any_of(
      found.runs, [&](const Run& run) { return std::ranges::any_of(run.parts, is_freed); });
}

bool ValueReader::has_places_of(const Look& a, const Look& b) {
  const auto same_record = [](const Part& one, const Part& other) {
    return one.extent.record == other.extent.record;
  };
  return std::ranges::equal(a.runs, b.runs, [&](const Run& one, const Run& other) {
    return std::ranges::equal(one.parts, other.parts, same_record);
  });
}

void ValueReader::remember_written(log::ObjectId id, log::RecordSequence sequence,
                                   std::span<const std::byte> bytes) {
  if (bytes.size() > kValueChunk) return;
  const std::shared_lock lock(core_.state);
  const auto inode = core_.index.find(id);
  const bool is_it = inode != nullptr && inode->sequence == sequence &&
                     inode->attributes.size == bytes.size() && !inode->damaged;
  if (is_it) core_.cache.insert({id, 0}, bytes);
}

void ValueReader::remember(const Look& found) {
  if (found.runs.empty()) return;
  // Changes come under the exclusive lock and erase what is cached, so what is still unchanged here
  // cannot go stale unnoticed.
  const std::shared_lock lock(core_.state);
  const auto inode = core_.index.find(found.id);
  if (inode == nullptr || inode->sequence != found.sequence) return;
  for (const Run& run : found.runs) {
    for (uint64_t at = run.begin; at < run.end(); at += kValueChunk) {
      const uint64_t end = std::min(run.end(), at + kValueChunk);
      const bool is_hole = std::ranges::none_of(run.parts, [&](const Part& part) {
        return part.extent.offset < end && part.extent.end() > at;
      });
      if (is_hole) continue;  // needs no cache
      core_.cache.insert({found.id, at / kValueChunk}, run.into.subspan(at - run.begin, end - at));
    }
  }
}

}  // namespace valfs
