#include "engine/log/payload_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/planted.h"
#include "engine/log/compression.h"

namespace valfs::log {
namespace {

// Up to here header and payload are fetched by one read.
constexpr uint64_t kOneRead = 128 * 1024;

// So much of a record that is read in two steps holds all but its payload, unless its name is long.
constexpr uint64_t kHead = 2048;

Error damaged(FileId file, uint64_t offset, const char* what) {
  return {EIO, log_file_path(file) + ": " + what + " at offset " + std::to_string(offset)};
}

// Fewer where the file ends.
Result<Buffer> fetch(const LogFile& file, uint64_t offset, uint64_t length, Wait wait) {
  Buffer bytes(length);
  VALFS_ASSIGN(const size_t got, wait == Wait::kForDisk
                                     ? file.file->read(offset, bytes.span())
                                     : file.file->read_at_once(offset, bytes.span()));
  bytes.shrink(got);
  return bytes;
}

// A compressed record: its header first, which tells where the frames lie, then those that are
// wanted; by one read if all of that is little.
class CompressedReader {
 public:
  CompressedReader(const FetchRecord& fetch, const Salt& salt, const index::Extent& extent)
      : fetch_(fetch), salt_(salt), extent_(extent) {}

  Status read(uint64_t begin, std::span<std::byte> into) {
    const uint64_t end = begin + into.size();
    VALFS_TRY(read_head(end));
    const auto found = decode(head_.span(), salt_, extent_.record.offset());
    if (!found || !is_compressed(found->record)) return damage("damaged record");
    const auto frames = Frames::read(found->record.body, found->payload_length);
    const bool is_it = frames && frames->raw_length() >= end &&
                       rate_for(found->total_length, frames->raw_length()) == extent_.meta;
    if (!is_it) return damage("damaged record");
    const uint64_t first_chunk = frames->stored_begin(begin / kFrame) / kPayloadChunk;
    const uint64_t from = first_chunk * kPayloadChunk;
    const uint64_t to =
        std::min<uint64_t>(round_up(frames->stored_begin((end - 1) / kFrame + 1), kPayloadChunk),
                           found->payload_length);
    VALFS_ASSIGN(const auto stored, payload(found->meta_length + from, to - from));
    if (stored.size() < to - from) return damage("log file ends inside the record");
    for (uint64_t at = 0; at < stored.size(); at += kPayloadChunk) {
      const auto chunk = stored.subspan(at, std::min<uint64_t>(kPayloadChunk, stored.size() - at));
      if (found->chunk_is(first_chunk + at / kPayloadChunk, chunk)) continue;
      return damage("damaged payload", found->meta_length + from + at);
    }
    if (!frames->expand(stored, from, begin, into)) return damage("damaged frame");
    return {};
  }

 private:
  tl::unexpected<Error> damage(const char* what, uint64_t at = 0) const {
    return tl::unexpected(damaged(extent_.record.file(), extent_.record.offset() + at, what));
  }

  // At least what lies before the payload. How long that is only the header tells, and where the
  // frames are it tells too; the extent lets guess what will be wanted up to `end`.
  Status read_head(uint64_t end) {
    const uint64_t known_raw = std::max<uint64_t>(end, extent_.lead + extent_.length);
    const uint64_t wanted = share(extent_.meta, std::min(round_up(end, kFrame), known_raw));
    auto fetched = fetch_(0, wanted <= kOneRead ? std::max(wanted, kHead) : kHead);
    // It may be a neighbour that cannot be read.
    if (!fetched) fetched = fetch_(0, sizeof(RecordHeader));
    VALFS_ASSIGN(head_, std::move(fetched));
    const uint64_t meta = plausible_meta_length(head_.span());
    if (meta > head_.size()) {
      VALFS_ASSIGN(head_, fetch_(0, meta));
    }
    return {};
  }

  // Bytes of the record: out of what is there, or read.
  Result<std::span<const std::byte>> payload(uint64_t from, uint64_t length) {
    if (head_.size() >= from + length) return std::as_const(head_).span().subspan(from, length);
    VALFS_ASSIGN(tail_, fetch_(from, length));
    return std::as_const(tail_).span();
  }

  const FetchRecord& fetch_;
  const Salt& salt_;
  const index::Extent& extent_;
  Buffer head_;
  Buffer tail_;
};

}  // namespace

Status read_compressed(const FetchRecord& fetch, const Salt& salt, const index::Extent& extent,
                       uint64_t skip, std::span<std::byte> into) {
  if (into.empty()) return {};
  return CompressedReader(fetch, salt, extent).read(extent.in_payload() + skip, into);
}

Status read_payload(const LogFile& file, const Salt& salt, const index::Extent& extent,
                    uint64_t skip, std::span<std::byte> into, Wait wait) {
  if (into.empty()) return {};
  const uint64_t start = extent.record.offset();
  if (extent.compressed != 0) {
    const auto from_file = [&](uint64_t from, uint64_t length) {
      return fetch(file, start + from, length, wait);
    };
    return read_compressed(from_file, salt, extent, skip, into);
  }
  const uint64_t begin = extent.in_payload() + skip;
  const uint64_t end = begin + into.size();
  const uint64_t first_chunk = begin / kPayloadChunk;
  const uint64_t fetch_begin = first_chunk * kPayloadChunk;
  const uint64_t fetch_end = round_up(end, kPayloadChunk);
  // Most records are one extent as a whole, and their payload ends where it does.
  const uint64_t likely_end = std::min(fetch_end, extent.in_payload() + extent.length);

  bool one_read = extent.meta + likely_end <= kOneRead;
  auto fetched = fetch(file, start, one_read ? extent.meta + likely_end : extent.meta, wait);
  if (!fetched && one_read &&
      wait == Wait::kForDisk) {  // it may be a neighbour that cannot be read
    one_read = false;
    fetched = fetch(file, start, extent.meta, wait);
  }
  VALFS_ASSIGN(const auto head, std::move(fetched));
  const auto found = decode(head.span(), salt, start);
  if (!found || is_compressed(found->record) || found->meta_length != extent.meta ||
      found->payload_length < end) {
    return tl::unexpected(damaged(file.id, start, "damaged record"));
  }
  const uint64_t payload_end = std::min<uint64_t>(fetch_end, found->payload_length);
  Buffer tail;
  std::span<const std::byte> payload;
  if (one_read && payload_end <= likely_end) {
    if (head.size() < extent.meta + payload_end) {
      return tl::unexpected(damaged(file.id, start, "log file ends inside the record"));
    }
    payload = head.span().subspan(extent.meta + fetch_begin, payload_end - fetch_begin);
  } else {
    VALFS_ASSIGN(tail,
                 fetch(file, start + extent.meta + fetch_begin, payload_end - fetch_begin, wait));
    if (tail.size() < payload_end - fetch_begin) {
      return tl::unexpected(damaged(file.id, start, "log file ends inside the record"));
    }
    payload = tail.span();
  }
  for (uint64_t at = 0; at < payload.size(); at += kPayloadChunk) {
    const auto chunk = payload.subspan(at, std::min<uint64_t>(kPayloadChunk, payload.size() - at));
    const bool good = found->chunk_is(first_chunk + at / kPayloadChunk, chunk);
    if (!good && !planted(Bug::kPayloadUnchecked)) {
      return tl::unexpected(
          damaged(file.id, start + extent.meta + fetch_begin + at, "damaged payload"));
    }
  }
  std::memcpy(into.data(), payload.data() + (begin - fetch_begin), into.size());
  return {};
}

}  // namespace valfs::log
