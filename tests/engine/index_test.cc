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

  Extent extent_of(uint64_t record, uint64_t offset, uint64_t length) {
    return {offset, length, kMeta, kMeta, Position::at(static_cast<log::FileId>(record), 4096)};
  }
  // Bytes in the log that the model points to, with headers.
  uint64_t live() const {
    std::set<uint64_t> records;
    uint64_t bytes = 0;
    for (const Byte& byte : model_) {
      if (byte.record == 0) continue;
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
        seen[extent.offset + i] = {extent.record.file(), extent.lead - kMeta + i};
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
      accounted_ += length + kMeta;
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
      ASSERT_EQ(map_.repoint(chosen.record, copy, released), piece.length);
      accounted_ += piece.length + kMeta;
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
    auto store = test::must_open(disk, test::small_options(clock));
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
