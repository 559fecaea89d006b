#include "engine/blob/blobs.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "engine/base/planted.h"

namespace valfs::blob {
namespace {

constexpr size_t kSumSize = sizeof(uint32_t);
// Unchecked chunks that are summed anew when a blob is opened; more only a sparse file has.
constexpr uint64_t kMostToSum = 65536;
constexpr size_t kOpenBlobs = 256;

uint64_t chunks_of(uint64_t size) {
  return (size + kValueChunk - 1) / kValueChunk;
}

std::span<const std::byte> as_bytes(const std::vector<uint32_t>& sums) {
  return std::as_bytes(std::span(sums));
}

}  // namespace

std::string blob_path(log::ObjectId blob) {
  char path[48];
  std::snprintf(path, sizeof path, "bin/%02x/%02x/%016lx", static_cast<unsigned>(blob >> 8 & 0xff),
                static_cast<unsigned>(blob & 0xff), static_cast<unsigned long>(blob));
  return path;
}

std::string Blobs::name_of(log::ObjectId inode) const {
  const std::shared_lock lock(core_.state);
  return core_.index.path_of(inode);
}

Result<Blobs::Place> Blobs::place_of(log::ObjectId inode) const {
  const std::shared_lock lock(core_.state);
  const auto known = core_.index.find(inode);
  if (known == nullptr) return fail(ENOENT, "no object " + std::to_string(inode));
  if (known->damaged) {
    return fail(EIO, core_.index.path_of(inode) + ": a record of this value is lost");
  }
  return Place{known->attributes.blob, known->attributes.size, known->attributes};
}

Result<Blobs::BlobRef> Blobs::open(log::ObjectId inode, const Place& place) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(inode);
    if (found != open_.end() && found->second->id == place.blob) return found->second;
  }
  auto blob = std::make_shared<Blob>();
  blob->inode = inode;
  blob->id = place.blob;
  auto file = core_.storage.open(blob_path(place.blob), storage::OpenMode::kReadWrite);
  if (!file) {
    return fail(EIO, name_of(inode) + ": its file " + file.error().what);
  }
  blob->file = std::move(*file);
  blob->durable_size = place.size;
  VALFS_TRY(load_sums(*blob, place.size));
  // What is unchecked may have been written by a daemon that was killed, and lie in the page cache
  // only: it is flushed before it gets sums.
  if (blob->unsummed) note_undurable(*blob);
  const std::lock_guard lock(mutex_);
  for (auto it = open_.begin(); it != open_.end() && open_.size() >= kOpenBlobs;) {
    const Blob& other = *it->second;
    const bool idle =
        it->second.use_count() == 1 && !other.undurable && !other.unsummed && !other.failure;
    it = idle ? open_.erase(it) : std::next(it);
  }
  // Readers under a shared lock may both have come here; the first one stays.
  auto& known = open_[inode];
  if (!known || known->id != blob->id) known = blob;
  return known;
}

// The bytes of a blob change in place. They must not once the log has failed: nobody will learn of
// it, and what the log has made durable stands for the bytes as they are.
Status Blobs::may_change(const Blob& blob) const {
  if (blob.failure) return tl::unexpected(*blob.failure);
  if (const auto failure = core_.writer->failure()) return tl::unexpected(*failure);
  return {};
}

// What lies behind the end must be gone for good before the value grows again over that place.
Status Blobs::shorten(Blob& blob, uint64_t size) {
  Status done = blob.file->resize(size);
  if (done && !planted(Bug::kShortenNotDurable)) done = blob.file->sync();
  if (!done) blob.failure = done.error();
  return done;
}

Status Blobs::still_names(const Transaction& transaction, log::ObjectId inode, log::ObjectId blob) {
  const auto known = transaction.index().find(inode);
  if (known != nullptr && known->attributes.blob == blob) return {};
  return fail(ENOENT, "object " + std::to_string(inode) + " is gone");
}

uint64_t Blobs::allocated_in(const Blob& blob) {
  const auto info = blob.file->info();
  return info ? info->allocated : 0;
}

void Blobs::recount(const Blob& blob, uint64_t before) {
  const uint64_t now = allocated_in(blob);
  if (now >= before) {
    core_.blob_bytes += now - before;
  } else {
    core_.blob_bytes -= std::min(before - now, core_.blob_bytes.load());
  }
}

Status Blobs::load_sums(Blob& blob, uint64_t size) {
  // What a crash left behind the end must not show when the value grows.
  VALFS_ASSIGN(const auto info, blob.file->info());
  if (info.size > size) VALFS_TRY(shorten(blob, size));
  std::vector<std::pair<uint64_t, uint64_t>> runs;
  {
    const std::shared_lock lock(core_.state);
    if (const auto sums = core_.index.find(blob.id)) {
      for (const auto& extent : sums->extents().all())
        runs.emplace_back(extent.offset, extent.length);
    }
  }
  for (const auto& [offset, length] : runs) {
    std::vector<uint32_t> sums(length / kSumSize);
    VALFS_TRY(values_.read_uncached(blob.id, offset, std::as_writable_bytes(std::span(sums))));
    for (size_t i = 0; i < sums.size(); i++) blob.sums.set(offset / kSumSize + i, sums[i]);
  }
  const uint64_t chunks = chunks_of(size);
  for (uint64_t chunk = 0; chunk < chunks && chunks <= kMostToSum; chunk++) {
    if (blob.sums.get(chunk) == 0) set_dirty(blob, chunk);
  }
  return {};
}

Result<std::vector<std::byte>> Blobs::read_chunk(Blob& blob, uint64_t chunk, uint64_t size) {
  const uint64_t begin = chunk * kValueChunk;
  std::vector<std::byte> bytes(std::min(kValueChunk, size - begin));
  VALFS_ASSIGN(const size_t got, blob.file->read(begin, bytes));
  std::fill(bytes.begin() + static_cast<ptrdiff_t>(got), bytes.end(), std::byte{0});
  const uint32_t sum = blob.sums.get(chunk);
  if (sum != 0 && sum != chunk_sum(bytes) && !planted(Bug::kChunkUnchecked)) {
    return fail(EIO, name_of(blob.inode) + ": " + blob_path(blob.id) +
                         ": damaged chunk at offset " + std::to_string(begin));
  }
  return bytes;
}

Result<size_t> Blobs::read(log::ObjectId inode, uint64_t offset, std::span<std::byte> into) {
  VALFS_ASSIGN(const Place place, place_of(inode));
  if (offset >= place.size || into.empty()) return 0;
  VALFS_ASSIGN(const BlobRef blob, open(inode, place));
  into = into.first(std::min<uint64_t>(into.size(), place.size - offset));
  for (size_t done = 0; done < into.size();) {
    const uint64_t at = offset + done;
    const uint64_t skip = at % kValueChunk;
    const size_t length = std::min<uint64_t>(into.size() - done, kValueChunk - skip);
    const auto part = into.subspan(done, length);
    if (blob->sums.get(at / kValueChunk) == 0) {
      VALFS_ASSIGN(const size_t got, blob->file->read(at, part));
      std::fill(part.begin() + static_cast<ptrdiff_t>(got), part.end(), std::byte{0});
    } else {
      VALFS_ASSIGN(const auto chunk, read_chunk(*blob, at / kValueChunk, place.size));
      std::memcpy(part.data(), chunk.data() + skip, length);
    }
    done += length;
  }
  return into.size();
}

void Blobs::note_undurable(Blob& blob) {
  const std::lock_guard lock(mutex_);
  if (!blob.undurable) blob.undurable_since = core_.now();
  blob.undurable = true;
}

// The change as the log knows it: BLOB_WRITE, and the sums of what was appended. The first one
// since a flush says up to where the blob is durable.
Status Blobs::append_written(Blob& blob, uint64_t offset, uint64_t length, uint64_t old_size,
                             Time now) {
  const uint64_t end = offset + length;
  std::vector<uint32_t> sums;
  const uint64_t first = old_size / kValueChunk;
  const uint64_t from = std::max(first, offset / kValueChunk);
  if (end > old_size) sums = blob.sums.range(from, chunks_of(end) - from);
  VALFS_ASSIGN(
      auto transaction,
      Transaction::begin(core_, Transaction::Size::of(4, 0, (sums.size() + 1) * kSumSize)));
  VALFS_TRY(still_names(transaction, blob.inode, blob.id));
  announce(blob, transaction, old_size);
  transaction.blob_written(blob.inode, offset, length);
  if (!sums.empty()) transaction.write_sums(blob.id, from * kSumSize, as_bytes(sums));
  std::vector<uint32_t> tail;
  if (end > old_size && first < from) {  // the old tail, now followed by a hole
    tail = blob.sums.range(first, 1);
    transaction.write_sums(blob.id, first * kSumSize, as_bytes(tail));
  }
  transaction.commit(now);
  return {};
}

void Blobs::announce(Blob& blob, Transaction& transaction, uint64_t durable_size) {
  if (planted(Bug::kSizeUnannounced)) return;
  if (!blob.announced) transaction.blob_synced(blob.inode, durable_size);
  blob.announced = true;
}

Status Blobs::write(log::ObjectId inode, uint64_t offset, std::span<const std::byte> bytes,
                    Time now) {
  VALFS_ASSIGN(const Place place, place_of(inode));
  VALFS_ASSIGN(const BlobRef blob, open(inode, place));
  VALFS_TRY(may_change(*blob));
  const uint64_t end = offset + bytes.size();
  const uint64_t growth = end > place.size ? end - std::max(place.size, offset) : 0;
  const uint64_t before = allocated_in(*blob);
  // New bytes may also fill a hole.
  const bool takes_space = growth > 0 || before < place.size;
  if (takes_space && core_.available_bytes() < bytes.size()) {
    return fail(ENOSPC, name_of(inode) + ": no space left on the volume");
  }
  if (offset < place.size) {
    VALFS_TRY(check_edges(*blob, offset, std::min(end, place.size), place.size));
    VALFS_TRY(mark(*blob, offset, std::min(end, place.size), place.size));
  }
  const uint64_t tail_chunk = place.size / kValueChunk;
  const uint32_t tail_sum = blob->sums.get(tail_chunk);
  const auto undo_growth = [&] {
    blob->sums.truncate(chunks_of(place.size));
    const bool overwritten = offset < place.size && end > tail_chunk * kValueChunk;
    blob->sums.set(tail_chunk, overwritten ? 0 : tail_sum);
    return growth > 0 ? shorten(*blob, place.size) : Status{};
  };
  note_undurable(*blob);
  if (auto written = blob->file->write(offset, bytes); !written) {
    // Part of it may be there: what was overwritten has no sum any more, what was appended goes.
    note_overwritten(*blob, offset, std::min(end, place.size));
    VALFS_TRY(undo_growth());
    return written;
  }
  note_overwritten(*blob, offset, std::min(end, place.size));
  if (growth > 0 && !sum_appended(*blob, offset, bytes, place.size)) {
    // Nothing could tell later whether they have reached the disk: so they do now.
    if (auto synced = blob->file->sync(); !synced) {
      blob->failure = synced.error();
      VALFS_TRY(undo_growth());
      return synced;
    }
  }
  if (auto logged = append_written(*blob, offset, bytes.size(), place.size, now); !logged) {
    VALFS_TRY(undo_growth());
    return logged;
  }
  recount(*blob, before);
  return {};
}

Status Blobs::flush(log::ObjectId inode) {
  VALFS_ASSIGN(const Place place, place_of(inode));
  if (place.blob == 0) return {};
  VALFS_ASSIGN(const BlobRef blob, open(inode, place));
  if (blob->failure) return tl::unexpected(*blob->failure);
  if (!blob->undurable) return {};
  if (auto synced = planted(Bug::kBlobFlushLies) ? Status{} : blob->file->sync(); !synced) {
    if (!planted(Bug::kForgetBlobError)) blob->failure = synced.error();
    return synced;
  }
  VALFS_ASSIGN(auto transaction, Transaction::begin(core_, Transaction::Size::of(1, 0, 0),
                                                    log::LogWriter::Purpose::kReserve));
  if (auto there = still_names(transaction, inode, blob->id); !there) {
    forget(inode);
    return there;
  }
  transaction.blob_synced(inode, place.size);
  transaction.commit({});
  blob->durable_size = place.size;
  const std::lock_guard lock(mutex_);
  blob->undurable = false;
  blob->announced = false;
  return {};
}

std::vector<log::ObjectId> Blobs::unfinished() const {
  std::vector<log::ObjectId> inodes;
  const std::lock_guard lock(mutex_);
  for (const auto& [inode, blob] : open_) {
    if (blob->undurable || blob->unsummed) inodes.push_back(inode);
  }
  return inodes;
}

bool Blobs::is_undurable(log::ObjectId inode) const {
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(inode);
  return unverified_.count(inode) > 0 || (found != open_.end() && found->second->undurable);
}

std::optional<std::chrono::steady_clock::time_point> Blobs::undurable_since() const {
  std::optional<std::chrono::steady_clock::time_point> oldest;
  const std::lock_guard lock(mutex_);
  for (const auto& [inode, blob] : open_) {
    if (blob->undurable && (!oldest || blob->undurable_since < *oldest)) {
      oldest = blob->undurable_since;
    }
  }
  return oldest;
}

void Blobs::forget(log::ObjectId inode) {
  const std::lock_guard lock(mutex_);
  open_.erase(inode);
}

uint64_t Blobs::allocated(log::ObjectId blob) {
  const auto file = core_.storage.open(blob_path(blob), storage::OpenMode::kRead);
  if (!file) return 0;
  const auto info = (*file)->info();
  return info ? info->allocated : 0;
}

void Blobs::remove_later(log::ObjectId blob, log::ObjectId inode) {
  forget(inode);
  if (planted(Bug::kRemoveBlobEarly)) (void)core_.storage.remove(blob_path(blob));
  core_.when_durable([this, blob] {
    const uint64_t bytes = std::min(allocated(blob), core_.blob_bytes.load());
    // A file that stays behind is swept at the next mount.
    if (core_.storage.remove(blob_path(blob))) core_.blob_bytes -= bytes;
  });
}

}  // namespace valfs::blob
