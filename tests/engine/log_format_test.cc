// Records, groups, staging slots, the superblock and retired intervals: to bytes and back, and what
// damage of any bit does.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <set>

#include "engine/log/group.h"
#include "engine/log/manifest.h"
#include "engine/log/staging.h"
#include "engine/log/superblock.h"
#include "tests/support/sim_store.h"

namespace valfs::log {
namespace {

using test::Bytes;
using test::pattern;

const Salt kSalt{0x1234, 7, 3};
constexpr uint64_t kOffset = 5 * kBlock;

Record sample(const Bytes& payload, std::string_view name, std::span<const std::byte> body) {
  Record record;
  record.type = RecordType::kExtent;
  record.flags = kCopy;
  record.sequence = 99;
  record.id = 0x1122334455667788;
  record.a = 4096;
  record.b = 17;
  record.time = {-5, 999'999'999};
  record.origin = 6;
  record.body = body;
  record.name = name;
  record.payload = payload;
  return record;
}

// A group of three records at kOffset.
struct Image {
  std::vector<std::byte> bytes = std::vector<std::byte>(64 * 1024);
  GroupHeader header;
  std::vector<uint32_t> offsets;

  explicit Image(const Bytes& payload) {
    GroupSummary summary;
    uint64_t end = sizeof(GroupHeader);
    for (const char* name : {"first", "second", "third"}) {
      Record record = sample(payload, name, {});
      record.sequence += offsets.size();
      record.id = 20 + offsets.size();
      offsets.push_back(static_cast<uint32_t>(end));
      summary.add(record, encode(record, kSalt, kOffset + end, bytes.data() + end),
                  static_cast<uint32_t>(end));
      end += record.total_length();
    }
    header = seal_group(bytes.data(), end, summary, {kSalt, kOffset, 12, Stream::kWarm, 34, 56}, 11,
                        102, 23);
    bytes.resize(round_up(header.length, kBlock));
  }
};

TEST(LogFormat, RecordsComeBack) {
  for (const size_t length : {0, 1, 7, 8, 100, 16 * 1024, 16 * 1024 + 1, 50'000}) {
    const Bytes payload = pattern(length, length);
    const Bytes body = pattern(1, 24);
    const Record record = sample(payload, "a name", body);
    std::vector<std::byte> bytes(record.total_length());
    EXPECT_EQ(bytes.size() % kRecordAlignment, 0u);
    const uint32_t crc = encode(record, kSalt, kOffset, bytes.data());
    const auto found = decode(bytes, kSalt, kOffset);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->crc, crc);
    EXPECT_EQ(found->total_length, bytes.size());
    EXPECT_EQ(found->record.sequence, record.sequence);
    EXPECT_EQ(found->record.id, record.id);
    EXPECT_EQ(found->record.a, record.a);
    EXPECT_EQ(found->record.b, record.b);
    EXPECT_EQ(found->record.time, record.time);
    EXPECT_EQ(found->record.origin, record.origin);
    EXPECT_EQ(found->record.flags, record.flags);
    EXPECT_EQ(found->record.name, record.name);
    EXPECT_TRUE(std::equal(body.begin(), body.end(), found->record.body.begin()));
    EXPECT_TRUE(found->payload_is(payload));
    // Meant for another place, it is nothing.
    EXPECT_FALSE(decode(bytes, kSalt, kOffset + 8));
    EXPECT_FALSE(decode(bytes, {kSalt.volume, kSalt.file + 1, kSalt.epoch}, kOffset));
    EXPECT_FALSE(decode(bytes, {kSalt.volume, kSalt.file, kSalt.epoch + 1}, kOffset));
    EXPECT_FALSE(decode(bytes, {kSalt.volume + 1, kSalt.file, kSalt.epoch}, kOffset));
  }
}

TEST(LogFormat, EveryFlippedBitOfARecordShows) {
  const Bytes payload = pattern(3, 200);
  const Record record = sample(payload, "name", {});
  std::vector<std::byte> bytes(record.total_length());
  encode(record, kSalt, kOffset, bytes.data());
  for (size_t bit = 0; bit < bytes.size() * 8; bit++) {
    auto damaged = bytes;
    damaged[bit / 8] ^= std::byte{1} << (bit % 8);
    const auto found = decode(damaged, kSalt, kOffset);
    const auto payload_now = std::span(damaged).subspan(record.meta_length(), payload.size());
    const bool same = found && found->payload_is(payload_now);
    EXPECT_FALSE(same) << "bit " << bit;
  }
}

TEST(LogFormat, GroupsComeBack) {
  const Bytes payload = pattern(5, 700);
  const Image image(payload);
  const auto header = decode_group_header(image.bytes, kSalt, kOffset);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->sequence, 12u);
  EXPECT_EQ(header->watermark, 11u);
  EXPECT_EQ(header->next_record, 102u);
  EXPECT_EQ(header->next_object, 23u);
  const auto contents = read_group(image.bytes, *header, kSalt, kOffset);
  EXPECT_TRUE(contents.whole);
  ASSERT_EQ(contents.records.size(), 3u);
  EXPECT_EQ(contents.records[1].found.record.name, "second");
  EXPECT_FALSE(decode_group_header(image.bytes, kSalt, kOffset + kBlock));
}

// Bits in the padding and the reserve are the only ones that mean nothing.
TEST(LogFormat, EveryFlippedBitOfAGroupShows) {
  const Bytes payload = pattern(5, 300);
  const Image image(payload);
  for (size_t bit = 0; bit < uint64_t{image.header.length} * 8; bit++) {
    auto damaged = image.bytes;
    damaged[bit / 8] ^= std::byte{1} << (bit % 8);
    const auto header = decode_group_header(damaged, kSalt, kOffset);
    const bool whole = header && read_group(damaged, *header, kSalt, kOffset).whole;
    EXPECT_FALSE(whole && payload.size() % 8 == 0) << "bit " << bit;
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(LogFormat, ADamagedRecordDoesNotHideItsNeighbours) {
  const Bytes payload = pattern(5, 304);
  const Image image(payload);
  auto damaged = image.bytes;
  damaged[image.offsets[1] + 9] ^= std::byte{4};
  const auto header = decode_group_header(damaged, kSalt, kOffset);
  ASSERT_TRUE(header);
  const auto contents = read_group(damaged, *header, kSalt, kOffset);
  EXPECT_FALSE(contents.whole);
  ASSERT_EQ(contents.records.size(), 2u);
  EXPECT_EQ(contents.records[1].found.record.name, "third");
  ASSERT_EQ(contents.lost.size(), 1u);
  EXPECT_EQ(contents.lost[0].id, 21u);
  // Without the group's header the records are found all the same.
  std::memset(damaged.data(), 0, sizeof(GroupHeader));
  EXPECT_EQ(find_records(damaged, kSalt, kOffset).size(), 2u);
}

TEST(LogFormat, TheYoungestObjectIsFoundInBodies) {
  index::Attributes attributes;
  attributes.blob = 77;
  Record record;
  record.type = RecordType::kInode;
  record.id = 20;
  record.body = bytes_of(attributes);
  EXPECT_EQ(youngest_object(record), 77u);
}

// --- staging slots ---

class Memory final : public storage::StagingMemory {
 public:
  explicit Memory(std::span<std::byte> bytes) : bytes_(bytes) {}
  std::span<std::byte> bytes() override { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

struct SlotMemory {
  static constexpr uint64_t kSlot = 4 * kBlock;
  std::vector<uint64_t> words = std::vector<uint64_t>(Staging::bytes_needed(3, kSlot) / 8);
  std::span<std::byte> bytes() { return std::as_writable_bytes(std::span(words)); }
};

TEST(Staging, CommittedBatchesComeBackInOrder) {
  SlotMemory memory;
  VolumeId volume;
  volume.bytes[3] = 9;
  Staging staging(std::make_unique<Memory>(memory.bytes()), volume, 5, 3, SlotMemory::kSlot);
  const Bytes payload = pattern(1, 100);
  const auto fill = [&](uint32_t slot, GroupSequence sequence, bool commit) {
    SlotHeader& header = staging.header(slot);
    header.sequence = sequence;
    header.file = 2;
    header.epoch = 5;
    header.offset = sequence * kBlock;
    const Record record = sample(payload, "x", {});
    encode(record, {volume.salt(), 2, 5}, header.offset + sizeof(GroupHeader),
           staging.image(slot) + sizeof(GroupHeader));
    if (commit) header.committed = sizeof(GroupHeader) + record.total_length();
  };
  fill(0, 11, true);
  fill(1, 12, false);
  fill(2, 10, true);
  const auto groups = read_staging(memory.bytes(), volume, 5, 1, 16);
  ASSERT_TRUE(groups);
  ASSERT_EQ(groups->size(), 2u);
  EXPECT_EQ((*groups)[0].place.sequence, 10u);
  const auto header = decode_group_header((*groups)[1].image, (*groups)[1].place.salt, 11 * kBlock);
  ASSERT_TRUE(header);
  EXPECT_TRUE(read_group((*groups)[1].image, *header, (*groups)[1].place.salt, 11 * kBlock).whole);
  EXPECT_GT(header->next_record, 99u);

  EXPECT_EQ(read_staging(memory.bytes(), volume, 4, 1, 16).error().code, EINVAL);
  EXPECT_EQ(read_staging(memory.bytes(), VolumeId{}, 5, 1, 16).error().code, EINVAL);
  // What lies before a damaged slot is good.
  staging.image(0)[200] ^= std::byte{1};
  const auto before = read_staging(memory.bytes(), volume, 5, 1, 16);
  ASSERT_TRUE(before);
  ASSERT_EQ(before->size(), 1u);
  EXPECT_EQ((*before)[0].place.sequence, 10u);
}

// --- superblock ---

TEST(Superblock, OfTornWritesTheOldOrTheNewComesBack) {
  for (const size_t sector : {512, 4096}) {
    std::set<uint64_t> seen;
    for (uint64_t seed = 0; seed < 200; seed++) {
      storage::SimDisk disk({.seed = seed, .sector_size = sector});
      Superblock superblock;
      superblock.epoch = 1;
      ASSERT_TRUE(create_superblock(disk, superblock));
      for (Epoch epoch = 2; epoch < 5; epoch++) {
        superblock.epoch = epoch;
        superblock.cut_count = epoch;
        superblock.cuts.fill({epoch, 0, epoch * 4096});
        if (epoch == 4) disk.cut_at(1 + seed % 8);
        const auto written = write_superblock(disk, superblock);
        ASSERT_TRUE(written || epoch == 4);
        if (epoch == 3 && seed % 2 == 0) {  // killed while writing, and then the power goes
          disk.cut_at(1 + seed / 2 % 7);
          superblock.epoch = 3;
          (void)write_superblock(disk, superblock);
          disk.restart(storage::CrashKind::kProcessKill);
          const auto found = read_superblock(disk);
          ASSERT_TRUE(found);
          superblock = *found;
        }
      }
      disk.restart(storage::CrashKind::kPowerLoss);
      const auto found = read_superblock(disk);
      ASSERT_TRUE(found) << "seed " << seed << ": " << found.error().what;
      EXPECT_TRUE(found->epoch == 3 || found->epoch == 4);
      EXPECT_EQ(found->cuts[found->epoch - 1].file, found->epoch);
      seen.insert(found->epoch);
    }
    EXPECT_EQ(seen.size(), 2u);
  }
}

TEST(Superblock, OneWholeCopyIsEnough) {
  storage::SimDisk disk({});
  Superblock superblock;
  superblock.epoch = 41;
  ASSERT_TRUE(create_superblock(disk, superblock));
  for (uint64_t copy = 0; copy < 4; copy++) {
    EXPECT_EQ(read_superblock(disk)->epoch, 41u);
    ASSERT_TRUE(disk.flip_bit(kSuperblockPath, (copy * kBlock + 200) * 8));
  }
  EXPECT_EQ(read_superblock(disk).error().code, EINVAL);
  EXPECT_EQ(
      read_superblock(*std::make_unique<storage::SimDisk>(storage::SimDiskOptions{})).error().code,
      ENOENT);
}

// --- manifest ---

TEST(Manifest, KnowsWhatWasFreed) {
  const std::vector<ManifestEntry> entries{{3, 1, 9, 0}, {5, 4, 0, 0}};
  const Manifest manifest(40, 30, 6, std::as_bytes(std::span(entries)));
  EXPECT_EQ(manifest.newest_freed(), 30u);
  EXPECT_TRUE(manifest.freed(2, 8 * kBlock));
  EXPECT_FALSE(manifest.freed(3, 2 * kBlock));
  EXPECT_TRUE(manifest.freed(5, 4 * kBlock));
  EXPECT_FALSE(manifest.freed(5, 5 * kBlock));
  EXPECT_EQ(manifest.end_of(3), 9 * kBlock);
  EXPECT_EQ(manifest.end_of(5), std::nullopt);
  EXPECT_EQ(manifest.begin_of(5), 4 * kBlock);
  EXPECT_EQ(manifest.begin_of(4), std::nullopt);
  EXPECT_TRUE(manifest.gone(6) && manifest.freed(6, 9 * kBlock));
  EXPECT_FALSE(manifest.gone(7) || manifest.freed(7, 2 * kBlock))
      << "a group that was moved there may be older than the manifest";
  EXPECT_FALSE(Manifest().freed(2, kBlock)) << "without a manifest nothing was freed";
}

}  // namespace
}  // namespace valfs::log
