// Any records at all, in groups with right checksums, replayed by a mount: with and without
// checkpoint, of one log file or several.
#include <spdlog/spdlog.h>

#include <cstring>

#include "engine/base/check.h"
#include "engine/base/crc32c.h"
#include "engine/index/attributes.h"
#include "engine/log/compression.h"
#include "engine/log/superblock.h"
#include "tests/fuzz/crcs.h"
#include "tests/support/sim_store.h"

namespace valfs::fuzz {
namespace {

using log::Record;
using log::RecordType;
using storage::SimDisk;

StoreOptions options() {
  StoreOptions options = test::small_options();
  options.slots = 2;
  options.slot_size = 40 * kKiB;
  options.log_file_size = 64 * kKiB;
  return options;
}

// Mostly few and small numbers, so that records meet; sometimes anything.
uint64_t number(Input& input) {
  const auto kind = input.take<uint8_t>();
  if (kind < 200) return kind % 16;
  if (kind < 240) return input.take<uint16_t>();
  return input.take<uint64_t>();
}

struct Built {
  Record record;
  std::vector<std::byte> body;
  std::vector<std::byte> payload;
  std::string name;
};

// A table that may well fit the payload, and frames of anything.
void build_frames(Input& input, Built& built) {
  if (built.payload.empty()) built.payload = input.bytes(1 + input.below(200));
  log::FrameTable table;
  table.from = log::Position::at(static_cast<log::FileId>(1 + input.below(3)),
                                 log::kFirstGroupOffset + number(input) * log::kRecordAlignment);
  table.raw_length =
      static_cast<uint32_t>(built.payload.size() + number(input) % (log::kFrame - 20'000));
  table.algorithm = static_cast<Compression>(input.take<uint8_t>() % 4);
  const auto length = static_cast<uint32_t>(built.payload.size());
  built.body.clear();
  for (const auto& bytes : {log::bytes_of(table), log::bytes_of(length)}) {
    built.body.insert(built.body.end(), bytes.begin(), bytes.end());
  }
  if (input.take<uint8_t>() > 240) built.body.resize(built.body.size() - 1);
  // Padded as the cleaner does it: else it is nonsense at once.
  Record record = built.record;
  record.body = built.body;
  record.payload = built.payload;
  const uint64_t needed = record.total_length();
  const uint64_t total = log::share(log::rate_for(needed, table.raw_length), table.raw_length);
  if (total - needed < 64) built.body.resize(built.body.size() + (total - needed));
}

void build(Input& input, Built& built) {
  Record& record = built.record;
  record.type = static_cast<RecordType>(input.take<uint8_t>() % 12);
  record.flags = input.take<uint8_t>() % 32;
  record.sequence = number(input);
  record.id = number(input);
  record.a = number(input);
  record.b = number(input);
  record.origin = static_cast<log::FileId>(number(input));
  built.name = std::string(input.take<uint8_t>() % 4, static_cast<char>('a' + input.below(3)));
  switch (record.type) {
    case RecordType::kInode: {
      index::Attributes attributes;
      attributes.mode = input.below(2) == 0 ? 0100644 : 0040755;
      attributes.links = static_cast<uint32_t>(number(input));
      attributes.size = number(input);
      attributes.blob = number(input);
      const auto bytes = log::bytes_of(attributes);
      built.body.assign(bytes.begin(), bytes.end());
      if (input.take<uint8_t>() > 250) built.body.pop_back();
      break;
    }
    case RecordType::kExtent:
      built.payload = input.bytes(number(input) % 20'000);
      if ((record.flags & log::kCopy) != 0) built.body = input.bytes(sizeof(log::Position));
      if (log::is_compressed(record)) build_frames(input, built);
      break;
    default:
      built.body = input.bytes(number(input) % 64);
  }
  record.body = built.body;
  record.name = built.name;
  record.payload = built.payload;
}

// One log file of groups; returns the last sequence.
log::GroupSequence write_file(SimDisk& disk, Input& input, const log::VolumeId& volume,
                              log::FileId id, log::GroupSequence sequence) {
  std::vector<std::byte> file(log::kBlock);
  log::LogFileHeader head;
  head.epoch = 1;
  head.volume = volume;
  head.file = id;
  head.crc = crc32c(log::bytes_of(head).first(offsetof(log::LogFileHeader, crc)));
  std::memcpy(file.data(), &head, sizeof head);
  const log::Salt salt{volume.salt(), id, 1};
  const uint64_t groups = 1 + input.below(4);
  for (uint64_t group = 0; group < groups; group++) {
    std::vector<std::byte> image(128 * kKiB);
    uint64_t end = sizeof(log::GroupHeader);
    log::GroupSummary summary;
    const uint64_t records = input.below(12);
    for (uint64_t i = 0; i < records; i++) {
      Built built;
      build(input, built);
      const uint64_t length = built.record.total_length();
      if (log::group_length(end + length, records) > image.size()) break;
      const uint32_t crc = log::encode(built.record, salt, file.size() + end, image.data() + end);
      summary.add(built.record, crc, static_cast<uint32_t>(end));
      end += length;
    }
    sequence += input.take<uint8_t>() > 240 ? number(input) : 1;
    const log::GroupPlace place{
        salt, file.size(), sequence, static_cast<log::Stream>(input.below(4)), number(input), 0};
    const auto header = log::seal_group(image.data(), end, summary, place,
                                        input.below(2) == 0 ? sequence - 1 : number(input),
                                        number(input), number(input));
    image.resize(log::round_up(header.length, log::kBlock));
    file.insert(file.end(), image.begin(), image.end());
  }
  const std::string path = log::log_file_path(id);
  for (const char* directory : {"wal/00", "wal/00/00"}) {
    VALFS_CHECK(disk.make_directory(directory).has_value());
  }
  const auto opened = disk.open(path, storage::OpenMode::kCreate);
  VALFS_CHECK(opened && (*opened)->write(0, file));
  return sequence;
}

void use(Store& store) {
  std::vector<std::pair<log::ObjectId, uint64_t>> values;
  store.read_index([&](const index::Index& index) {
    index.for_each_inode([&](const index::Inode& inode) {
      values.emplace_back(inode.id, inode.attributes.size);
      (void)index.path_of(inode.id);
    });
  });
  for (const auto& [inode, size] : values) {
    std::vector<std::byte> bytes(std::min<uint64_t>(size, 16 * kKiB));
    (void)store.read(inode, 0, bytes);
    if (size > bytes.size()) (void)store.read(inode, size - bytes.size(), bytes);
    (void)store.write(inode, size / 2, bytes, test::kNow);
    (void)store.truncate(inode, size / 3, test::kNow);
  }
  (void)test::put(store, "new", test::pattern(9, 2000));
  (void)store.sync();
  (void)store.gc();
}

void run(Input input) {
  spdlog::set_level(spdlog::level::off);
  SimDisk disk({});
  for (const char* name : {"wal", "bin", "gc", "checkpoint"}) {
    VALFS_CHECK(disk.make_directory(name).has_value());
  }
  log::Superblock superblock;
  superblock.epoch = 1;
  superblock.clean = static_cast<uint32_t>(input.below(2));
  superblock.durable_group = number(input);
  VALFS_CHECK(log::create_superblock(disk, superblock).has_value());
  log::GroupSequence sequence = 0;
  const uint64_t files = 1 + input.below(3);
  for (log::FileId id = 1; id <= files; id++) {
    sequence = write_file(disk, input, superblock.volume, id, sequence);
  }
  for (int mount = 0; mount < 2; mount++) {
    const auto store = test::open_store(disk, options());
    if (!store) return;
    use(**store);
    (void)(*store)->close();
  }
}

}  // namespace
}  // namespace valfs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  valfs::fuzz::run({data, size});
  return 0;
}
