// Frames of compressed records: any table, any stored bytes, any range read out of them.
#include "engine/base/check.h"
#include "engine/log/compression.h"
#include "tests/fuzz/crcs.h"

namespace valfs::fuzz {
namespace {

void expand(const log::Frames& frames, Input& input, std::span<const std::byte> stored) {
  for (int i = 0; i < 4; i++) {
    const uint64_t begin = input.below(frames.raw_length());
    const uint64_t length = 1 + input.below(frames.raw_length() - begin);
    std::vector<std::byte> raw(length);
    const bool whole = frames.expand(stored, 0, begin, raw);
    // The same from those frames alone, as a reader has them.
    const uint64_t from = frames.stored_begin(begin / log::kFrame);
    const uint64_t to = frames.stored_begin((begin + length - 1) / log::kFrame + 1);
    std::vector<std::byte> again(length);
    const bool part = frames.expand(stored.subspan(from, to - from), from, begin, again);
    VALFS_CHECK(whole == part && (!whole || raw == again));
    // And with something missing.
    if (to > from + 1) (void)frames.expand(stored.subspan(from, to - from - 1), from, begin, again);
    if (from > 0) (void)frames.expand(stored.subspan(from), from + 1, begin, again);
  }
}

void read(Input input) {
  log::Record record;
  record.type = log::RecordType::kExtent;
  record.flags = log::kCopy | log::kCompressed;
  log::FrameTable table;
  const bool sane = input.take<uint8_t>() > 20;
  table.raw_length =
      sane ? static_cast<uint32_t>(1 + input.below(3 * log::kFrame)) : input.take<uint32_t>();
  table.algorithm = static_cast<Compression>(sane ? 1 + input.below(2) : input.take<uint8_t>());
  std::vector<std::byte> body(log::bytes_of(table).begin(), log::bytes_of(table).end());
  std::vector<std::byte> payload;
  const uint64_t count =
      sane ? (table.raw_length + log::kFrame - 1) / log::kFrame : input.below(70);
  for (uint64_t i = 0; i < count; i++) {
    const auto frame = input.bytes(1 + input.below(600));
    payload.insert(payload.end(), frame.begin(), frame.end());
    const auto length = sane ? static_cast<uint32_t>(frame.size()) : input.take<uint32_t>();
    body.insert(body.end(), log::bytes_of(length).begin(), log::bytes_of(length).end());
  }
  record.body = body;
  record.payload = payload;
  const auto raw = log::raw_bytes(record);
  const auto frames = log::Frames::read(body, payload.size());
  VALFS_CHECK(!raw || (frames && raw->size() == frames->raw_length()));
  if (!frames) return;
  VALFS_CHECK(frames->raw_length() <= log::kMaxPayload);
  expand(*frames, input, payload);
}

// What is packed comes back.
void pack(Input input) {
  const auto how = static_cast<Compression>(1 + input.below(2));
  const auto unit = input.bytes(1 + input.below(100));
  std::vector<std::byte> raw;
  const uint64_t wanted = 1024 + input.below(2 * log::kFrame);
  while (raw.size() < wanted) {
    raw.insert(raw.end(), unit.begin(), unit.end());
    const auto some = input.bytes(input.below(8));
    raw.insert(raw.end(), some.begin(), some.end());
  }
  const auto position = log::Position::at(1, log::kBlock);
  log::Record record;
  record.type = log::RecordType::kExtent;
  record.flags = log::kCopy;
  record.body = log::bytes_of(position);
  record.payload = raw;
  const auto packed = log::pack(record, position, how);
  if (!packed) return;
  const uint64_t before = record.total_length();
  record.flags |= log::kCompressed;
  record.body = packed->body;
  record.payload = packed->payload;
  const uint64_t total = record.total_length();
  VALFS_CHECK(total * 10 < before * 9);
  VALFS_CHECK(log::share(log::rate_for(total, raw.size()), raw.size()) == total);
  VALFS_CHECK(log::raw_bytes(record) == raw);
}

}  // namespace
}  // namespace valfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  valfs::fuzz::read({data, size});
  valfs::fuzz::pack({data, size});
  return 0;
}
