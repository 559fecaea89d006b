#include "engine/log/payload_reader.h"

#include <algorithm>
#include <cstring>

#include "engine/base/planted.h"
#include "engine/log/record.h"

namespace valfs::log {
namespace {

// Up to here header and payload are fetched by one read.
constexpr uint64_t kOneRead = 128 * 1024;

Error damaged(const LogFile& file, uint64_t offset, const char* what) {
  return {EIO, log_file_path(file.id) + ": " + what + " at offset " + std::to_string(offset)};
}

Result<std::vector<std::byte>> fetch(const LogFile& file, uint64_t offset, uint64_t length) {
  std::vector<std::byte> bytes(length);
  VALFS_ASSIGN(const size_t got, file.file->read(offset, bytes));
  bytes.resize(got);
  return bytes;
}

}  // namespace

Status read_payload(const LogFile& file, const Salt& salt, const index::Extent& extent,
                    uint64_t skip, std::span<std::byte> into) {
  if (into.empty()) return {};
  const uint64_t start = extent.record.offset();
  const uint64_t begin = extent.lead - extent.meta + skip;  // within the payload
  const uint64_t end = begin + into.size();
  const uint64_t first_chunk = begin / kPayloadChunk;
  const uint64_t fetch_begin = first_chunk * kPayloadChunk;
  const uint64_t fetch_end = round_up(end, kPayloadChunk);

  bool one_read = extent.meta + fetch_end <= kOneRead;
  auto fetched = fetch(file, start, one_read ? extent.meta + fetch_end : extent.meta);
  if (!fetched && one_read) {  // it may be a neighbour that cannot be read
    one_read = false;
    fetched = fetch(file, start, extent.meta);
  }
  VALFS_ASSIGN(const auto head, std::move(fetched));
  const auto found = decode(head, salt, start);
  if (!found || found->meta_length != extent.meta || found->payload_length < end) {
    return tl::unexpected(damaged(file, start, "damaged record"));
  }
  const uint64_t payload_end = std::min<uint64_t>(fetch_end, found->payload_length);
  std::vector<std::byte> tail;
  std::span<const std::byte> payload;
  if (one_read) {
    if (head.size() < extent.meta + payload_end) {
      return tl::unexpected(damaged(file, start, "log file ends inside the record"));
    }
    payload = std::span(head).subspan(extent.meta + fetch_begin, payload_end - fetch_begin);
  } else {
    VALFS_ASSIGN(tail, fetch(file, start + extent.meta + fetch_begin, payload_end - fetch_begin));
    if (tail.size() < payload_end - fetch_begin) {
      return tl::unexpected(damaged(file, start, "log file ends inside the record"));
    }
    payload = tail;
  }
  for (uint64_t at = 0; at < payload.size(); at += kPayloadChunk) {
    const auto chunk = payload.subspan(at, std::min<uint64_t>(kPayloadChunk, payload.size() - at));
    const bool good = found->chunk_is(first_chunk + at / kPayloadChunk, chunk);
    if (!good && !planted(Bug::kPayloadUnchecked)) {
      return tl::unexpected(
          damaged(file, start + extent.meta + fetch_begin + at, "damaged payload"));
    }
  }
  std::memcpy(into.data(), payload.data() + (begin - fetch_begin), into.size());
  return {};
}

}  // namespace valfs::log
