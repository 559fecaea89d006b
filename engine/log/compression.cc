#include "engine/log/compression.h"

#include <lz4.h>
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "engine/base/check.h"

namespace valfs::log {
namespace {

// The library's own default; a cleaner that is slower makes writers wait (cleaner/pacing.h).
constexpr int kZstdLevel = 3;
// Kept only if the record takes less than this share of what it took.
constexpr uint64_t kKeptPercent = 90;

// One for each thread: making one costs more than a small frame.
ZSTD_CCtx* compressor() {
  thread_local const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> context(ZSTD_createCCtx(),
                                                                                ZSTD_freeCCtx);
  VALFS_CHECK(context != nullptr);
  return context.get();
}

ZSTD_DCtx* expander() {
  thread_local const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(),
                                                                                ZSTD_freeDCtx);
  VALFS_CHECK(context != nullptr);
  return context.get();
}

// Bytes written to `into`; 0 if it has no room for them.
size_t compress_frame(Compression algorithm, std::span<const std::byte> raw,
                      std::span<std::byte> into) {
  if (algorithm == Compression::kLz4) {
    const int got = LZ4_compress_default(
        reinterpret_cast<const char*>(raw.data()), reinterpret_cast<char*>(into.data()),
        static_cast<int>(raw.size()), static_cast<int>(into.size()));
    return got > 0 ? static_cast<size_t>(got) : 0;
  }
  const size_t got =
      ZSTD_compressCCtx(compressor(), into.data(), into.size(), raw.data(), raw.size(), kZstdLevel);
  return ZSTD_isError(got) != 0 ? 0 : got;
}

// True if it gives exactly so many bytes. Memory is bounded by what the caller has made room for:
// neither of the two allocates by what a frame says of itself.
bool expand_frame(Compression algorithm, std::span<const std::byte> stored,
                  std::span<std::byte> raw) {
  if (stored.size() == raw.size()) {
    std::memcpy(raw.data(), stored.data(), raw.size());
    return true;
  }
  if (algorithm == Compression::kLz4) {
    const int got = LZ4_decompress_safe(
        reinterpret_cast<const char*>(stored.data()), reinterpret_cast<char*>(raw.data()),
        static_cast<int>(stored.size()), static_cast<int>(raw.size()));
    return got >= 0 && static_cast<size_t>(got) == raw.size();
  }
  const size_t got =
      ZSTD_decompressDCtx(expander(), raw.data(), raw.size(), stored.data(), stored.size());
  return ZSTD_isError(got) == 0 && got == raw.size();
}

constexpr uint64_t frame_count(uint64_t raw_length) {
  return (raw_length + kFrame - 1) / kFrame;
}

// Padded so that its share of all raw bytes is what `record` takes, with a body of that beginning.
void pad(const Record& record, uint64_t raw, std::vector<std::byte>& body) {
  Record padded = record;
  padded.body = body;
  const uint64_t needed = padded.total_length();
  const uint64_t total = share(rate_for(needed, raw), raw);
  // What the record is short of is a multiple of its alignment, and so is what it grows by.
  body.resize(body.size() + (total - needed));
}

// The frames of `raw`, and their lengths behind the table in `body`. False if that is not worth it.
bool compress(Compression algorithm, std::span<const std::byte> raw, Packed& packed) {
  const uint64_t most = raw.size() * kKeptPercent / 100;
  packed.payload.resize(raw.size());
  uint64_t end = 0;
  for (uint64_t at = 0; at < raw.size(); at += kFrame) {
    const auto frame = raw.subspan(at, std::min<uint64_t>(kFrame, raw.size() - at));
    const auto into = std::span(packed.payload).subspan(end, frame.size());
    size_t length = compress_frame(algorithm, frame, into.first(frame.size() - 1));
    if (length == 0) {
      std::memcpy(into.data(), frame.data(), frame.size());
      length = frame.size();
    }
    end += length;
    if (end > most) return false;
    const auto number = static_cast<uint32_t>(length);
    const auto bytes = bytes_of(number);
    packed.body.insert(packed.body.end(), bytes.begin(), bytes.end());
  }
  packed.payload.resize(end);
  return true;
}

}  // namespace

std::optional<Frames> Frames::read(std::span<const std::byte> body, uint64_t payload_length) {
  FrameTable table;
  if (body.size() < sizeof table) return std::nullopt;
  std::memcpy(&table, body.data(), sizeof table);
  const bool known = table.algorithm == Compression::kLz4 || table.algorithm == Compression::kZstd;
  if (!known || table.frame_bits != FrameTable{}.frame_bits || table.raw_length == 0 ||
      table.raw_length > kMaxPayload) {
    return std::nullopt;
  }
  Frames frames;
  frames.algorithm_ = table.algorithm;
  frames.raw_length_ = table.raw_length;
  frames.count_ = frame_count(table.raw_length);
  if (body.size() < sizeof table + frames.count_ * sizeof(uint32_t)) return std::nullopt;
  for (uint64_t i = 0; i < frames.count_; i++) {
    uint32_t length;
    std::memcpy(&length, body.data() + sizeof table + i * sizeof length, sizeof length);
    if (length == 0 || length > frames.raw_bytes(i)) return std::nullopt;
    frames.begins_[i + 1] = frames.begins_[i] + length;
  }
  if (frames.begins_[frames.count_] != payload_length) return std::nullopt;
  return frames;
}

uint64_t Frames::raw_bytes(uint64_t index) const {
  return std::min<uint64_t>(kFrame, raw_length_ - index * kFrame);
}

bool Frames::expand(std::span<const std::byte> stored, uint64_t stored_from, uint64_t begin,
                    std::span<std::byte> into) const {
  const uint64_t end = begin + into.size();
  VALFS_CHECK(end <= raw_length_);
  std::vector<std::byte> whole;  // of a frame of which only a part is wanted
  for (uint64_t at = begin; at < end;) {
    const uint64_t index = at / kFrame;
    const uint64_t skip = at % kFrame;
    const uint64_t length = std::min(raw_bytes(index) - skip, end - at);
    const uint64_t from = stored_begin(index);
    const uint64_t to = stored_begin(index + 1);
    if (from < stored_from || to - stored_from > stored.size()) return false;
    const auto frame = stored.subspan(from - stored_from, to - from);
    const auto target = into.subspan(at - begin, length);
    if (length == raw_bytes(index)) {
      if (!expand_frame(algorithm_, frame, target)) return false;
    } else {
      whole.resize(raw_bytes(index));
      if (!expand_frame(algorithm_, frame, whole)) return false;
      std::memcpy(target.data(), whole.data() + skip, length);
    }
    at += length;
  }
  return true;
}

std::optional<uint64_t> raw_length(const Record& record, uint64_t payload_length) {
  if (!is_compressed(record)) return payload_length;
  const auto frames = Frames::read(record.body, payload_length);
  if (!frames) return std::nullopt;
  return frames->raw_length();
}

std::optional<std::vector<std::byte>> raw_bytes(const Record& record) {
  if (!is_compressed(record)) return std::vector(record.payload.begin(), record.payload.end());
  const auto frames = Frames::read(record.body, record.payload.size());
  if (!frames) return std::nullopt;
  std::vector<std::byte> raw(frames->raw_length());
  if (!frames->expand(record.payload, 0, 0, raw)) return std::nullopt;
  return raw;
}

std::optional<Packed> pack(const Record& copy, Position from, Compression algorithm) {
  const uint64_t raw = copy.payload.size();
  FrameTable table;
  table.from = from;
  table.raw_length = static_cast<uint32_t>(raw);
  table.algorithm = algorithm;
  const auto head = bytes_of(table);
  Packed packed;
  packed.body.assign(head.begin(), head.end());
  if (!compress(algorithm, copy.payload, packed)) return std::nullopt;
  Record smaller = copy;
  smaller.flags |= kCompressed;
  smaller.payload = packed.payload;
  pad(smaller, raw, packed.body);
  smaller.body = packed.body;
  if (smaller.total_length() * 100 >= copy.total_length() * kKeptPercent) return std::nullopt;
  // What it is made from will be gone: the last moment to find that it does not come back.
  const auto again = raw_bytes(smaller);
  if (!again || !std::equal(again->begin(), again->end(), copy.payload.begin())) {
    return std::nullopt;
  }
  return packed;
}

std::vector<std::byte> body_for_copy(const Record& compressed, Position from) {
  const auto frames = Frames::read(compressed.body, compressed.payload.size());
  VALFS_CHECK(frames.has_value());
  const auto known = compressed.body.first(sizeof(FrameTable) + frames->count() * sizeof(uint32_t));
  std::vector<std::byte> body(known.begin(), known.end());
  std::memcpy(body.data(), &from, sizeof from);
  pad(compressed, frames->raw_length(), body);
  return body;
}

}  // namespace valfs::log
