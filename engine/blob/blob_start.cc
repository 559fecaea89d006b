// What happens to blobs at mount.
#include <algorithm>
#include <charconv>
#include <set>

#include "engine/base/planted.h"
#include "engine/blob/blobs.h"

namespace valfs::blob {
namespace {

uint64_t chunks_of(uint64_t size) {
  return (size + kValueChunk - 1) / kValueChunk;
}

}  // namespace

// The cleaner may have to make room while a mount is not done yet: it must not drop the records
// that say which bytes may be missing.
void Blobs::expect(const recovery::Recovered& recovered) {
  const std::lock_guard lock(mutex_);
  for (const auto& [inode, tail] : recovered.blobs) {
    if (!tail.written.empty()) unverified_.insert(inode);
  }
}

Status Blobs::start(const recovery::Recovered& recovered, std::vector<std::string>& warnings) {
  const bool damaged = recovered.damaged || recovered.lost_any();
  VALFS_TRY(sweep(damaged && !planted(Bug::kSweepAfterDamage), warnings));
  for (const auto& [inode, tail] : recovered.blobs) {
    if (tail.written.empty() || planted(Bug::kTailUnverified)) continue;
    const auto place = place_of(inode);
    if (!place || place->blob == 0) continue;
    VALFS_TRY(verify_tail(inode, tail, warnings));
    const std::lock_guard lock(mutex_);
    unverified_.erase(inode);
  }
  return {};
}

// Removes files of blobs that no inode names, or sets them aside if it may be that the record which
// named them is damaged. Counts the bytes of the others.
Status Blobs::sweep(bool keep, std::vector<std::string>& warnings) {
  std::set<log::ObjectId> named;
  core_.index.for_each_inode([&](const index::Inode& inode) {
    if (inode.attributes.blob != 0) named.insert(inode.attributes.blob);
  });
  uint64_t bytes = 0;
  uint64_t orphans = 0;
  VALFS_ASSIGN(const auto firsts, core_.storage.list("bin"));
  for (const std::string& first : firsts) {
    VALFS_ASSIGN(const auto seconds, core_.storage.list("bin/" + first));
    for (const std::string& second : seconds) {
      const std::string directory = "bin/" + first + "/" + second;
      VALFS_ASSIGN(const auto names, core_.storage.list(directory));
      for (const std::string& name : names) {
        log::ObjectId id = 0;
        const auto parsed = std::from_chars(name.data(), name.data() + name.size(), id, 16);
        if (parsed.ec != std::errc() || blob_path(id) != directory + "/" + name) continue;
        if (named.count(id) > 0) {
          bytes += allocated(id);
          continue;
        }
        const std::string path = directory + "/" + name;
        VALFS_TRY(keep ? core_.storage.rename(path, path + ".lost") : core_.storage.remove(path));
        orphans++;
      }
    }
  }
  core_.blob_bytes = bytes;
  if (orphans > 0) {
    warnings.push_back(std::to_string(orphans) + " files in bin/ that no name leads to " +
                       (keep ? "set aside as *.lost: records are damaged" : "removed"));
  }
  return {};
}

// A blob is believed as far as the chunks written last match their sums. That is all of it where
// the page cache has survived, which nobody can know: a daemon that was killed after power loss may
// have got no further than this.
Status Blobs::verify_tail(log::ObjectId inode, const recovery::BlobTail& tail,
                          std::vector<std::string>& warnings) {
  VALFS_ASSIGN(const Place place, place_of(inode));
  if (place.size == 0) return {};
  const auto opened = open(inode, place);
  if (!opened) {
    if (opened.error().code != EIO) return tl::unexpected(opened.error());
    warnings.push_back(opened.error().what);  // reading it will say so, too
    return {};
  }
  const BlobRef& blob = *opened;
  uint64_t durable = tail.synced ? tail.synced_size : place.size;
  std::set<uint64_t> chunks;
  for (const auto& [begin, end] : tail.written) {
    if (!tail.synced) durable = std::min(durable, begin);
    for (uint64_t chunk = begin / kValueChunk; chunk < chunks_of(std::min(end, place.size));
         chunk++) {
      chunks.insert(chunk);
    }
  }
  durable = std::min(durable, place.size);
  VALFS_ASSIGN(const auto info, blob->file->info());
  uint64_t good = place.size;
  std::vector<uint64_t> unchecked;
  for (const uint64_t chunk : chunks) {
    const uint64_t begin = chunk * kValueChunk;
    if (begin >= good) break;
    const bool grew = std::min(begin + kValueChunk, place.size) > durable;
    if (blob->sums.get(chunk) == 0) {  // unchecked: believed as far as the file goes
      if (grew) good = std::min(good, std::max(durable, info.size));
    } else if (!read_chunk(*blob, chunk, place.size)) {
      // The sum stands for bytes that are not there: what is left of the chunk is unchecked.
      unchecked.push_back(chunk);
      if (grew) good = std::min(good, std::max(begin, durable));
    }
  }
  // The size first: a chunk without a sum is believed as far as the file goes.
  for (const uint64_t chunk : unchecked) set_dirty(*blob, chunk);
  if (good < place.size) {
    warnings.push_back(name_of(inode) + ": the last " + std::to_string(place.size - good) +
                       " bytes had not reached the disk");
    VALFS_TRY(truncate(inode, good, place.attributes.modified()));
  }
  for (const uint64_t chunk : unchecked) {
    if (chunk * kValueChunk >= good) break;
    const uint32_t zero = 0;
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(core_, Transaction::Size::of(1, 0, sizeof zero),
                                    log::LogWriter::Purpose::kReserve));
    transaction.write_sums(blob->id, chunk * sizeof zero, log::bytes_of(zero));
    transaction.commit({});
  }
  if (good == 0) return {};
  note_undurable(*blob);
  auto flushed = flush(inode);
  if (flushed || !blob->failure) return flushed;
  warnings.push_back(name_of(inode) + ": " + flushed.error().what);  // every sync will say so, too
  return {};
}

}  // namespace valfs::blob
