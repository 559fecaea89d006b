// The extent map against an array of bytes, and the accounts of live bytes against a recount.
#include "engine/index/index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "tests/support/tree_model.h"

namespace valfs::index {
namespace {

// Byte by byte: which record it is in, and where in its payload; 0: a hole.
struct Byte {
  uint64_t record = 0;
  uint64_t at = 0;
  friend bool operator==(const Byte&, const Byte&) = default;
};

class ExtentMapTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  static constexpr uint64_t kSize = 400;
  static constexpr uint64_t kMeta = 80;

  // Every third record is compressed.
  static bool is_compressed(uint64_t record) { return record % 3 == 0; }
  static uint64_t rate_of(uint64_t record) { return 1 + record * 200; }
  static Extent extent_of(uint64_t record, uint64_t offset, uint64_t length) {
    const auto position = Position::at(static_cast<log::FileId>(record), 4096);
    if (is_compressed(record)) return {offset, length, 0, 1, rate_of(record), position};
    return {offset, length, kMeta, 0, kMeta, position};
  }
  // What a whole record counts for.
  static uint64_t bytes_of(uint64_t record, uint64_t length) {
    return is_compressed(record) ? log::share(rate_of(record), length) : length + kMeta;
  }
  // Bytes in the log that the model points to, with headers.
  uint64_t live() const {
    std::set<uint64_t> records;
    uint64_t bytes = 0;
    for (const Byte& byte : model_) {
      if (byte.record == 0) continue;
      if (is_compressed(byte.record)) {
        const uint64_t rate = rate_of(byte.record);
        bytes += log::share(rate, byte.at + 1) - log::share(rate, byte.at);
        continue;
      }
      bytes++;
      records.insert(byte.record);
    }
    return bytes + records.size() * kMeta;
  }
  void check() {
    std::vector<Byte> seen(kSize);
    uint64_t end = 0;
    for (const Extent& extent : map_.all()) {
      ASSERT_GE(extent.offset, end);
      ASSERT_GT(extent.length, 0u);
      end = extent.end();
      for (uint64_t i = 0; i < extent.length; i++) {
        seen[extent.offset + i] = {extent.record.file(), extent.in_payload() + i};
      }
    }
    ASSERT_TRUE(seen == model_);
    ASSERT_EQ(accounted_, live());
  }

  ExtentMap map_;
  std::vector<Byte> model_ = std::vector<Byte>(kSize);
  uint64_t accounted_ = 0;
};

TEST_P(ExtentMapTest, DoesWhatAnArrayDoes) {
  std::mt19937_64 random(GetParam());
  const auto released = [&](const ExtentMap::Released& what) { accounted_ -= what.bytes; };
  for (uint64_t record = 1; record < 300; record++) {
    const uint64_t offset = random() % kSize;
    const uint64_t length = 1 + random() % std::min<uint64_t>(kSize - offset, 120);
    if (random() % 4 == 0) {
      map_.cut(offset, offset + length, released);
      std::fill_n(model_.begin() + static_cast<ptrdiff_t>(offset), length, Byte{});
    } else {
      map_.insert(extent_of(record, offset, length), released);
      accounted_ += bytes_of(record, length);
      for (uint64_t i = 0; i < length; i++) model_[offset + i] = {record, i};
    }
    check();
    if (::testing::Test::HasFailure()) return;
    if (random() % 5 != 0 || map_.empty()) continue;
    // The cleaner moves every piece of a record.
    const Extent chosen = map_.all()[random() % map_.all().size()];
    const std::vector<Extent> all(map_.all().begin(), map_.all().end());
    for (const Extent& piece : all) {
      if (piece.record != chosen.record) continue;
      record++;
      const Extent copy = extent_of(record, piece.offset, piece.length);
      ASSERT_EQ(map_.repoint(chosen.record, copy, released), bytes_of(record, piece.length));
      accounted_ += bytes_of(record, piece.length);
      for (uint64_t i = 0; i < piece.length; i++) model_[piece.offset + i] = {record, i};
    }
    check();
    if (::testing::Test::HasFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ExtentMapTest, ::testing::Range<uint64_t>(1, 30));

TEST(IndexAccounts, LiveBytesAreExactThroughoutAHistory) {
  for (uint64_t seed = 1; seed <= 20; seed++) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    storage::SimDisk disk({.seed = seed});
    test::FakeClock clock;
    StoreOptions options = test::small_options(clock);
    if (seed % 2 == 0) options.compression = Compression::kZstd;
    auto store = test::must_open(disk, options);
    test::ActionSource source(seed, true);
    test::Tree tree;
    for (int i = 0; i < 150; i++) {
      const auto action = source.next(tree);
      tree.apply(action);
      const auto done = test::run(*store, clock, action);
      ASSERT_TRUE(done) << action.text() << ": " << done.error().what;
      ASSERT_EQ(test::check_index(*store), "") << "after " << action.text();
    }
    const auto stats = store->stats();
    EXPECT_GT(stats.live_bytes, 0u);
    EXPECT_EQ(test::difference(test::StoreImage::of(*store), tree), "");
    ASSERT_TRUE(store->close());
  }
}

}  // namespace
}  // namespace valfs::index
