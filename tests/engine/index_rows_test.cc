// What the index is made of: pieces of memory, packed rows, the lists of a directory; and that a
// file takes no more memory than the design allows.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "engine/index/index.h"
#include "tests/support/crash_check.h"

namespace valfs::index {
namespace {

using log::Record;
using log::RecordType;
using test::with_effort;

std::span<const std::byte> body_of(const Attributes& attributes) {
  return log::bytes_of(attributes);
}

// An index that is filled as the log would fill it.
class Filled {
 public:
  ObjectId create(ObjectId parent, const std::string& name, uint64_t size) {
    const ObjectId id = next_++;
    Attributes attributes;
    attributes.mode = 0100644;
    attributes.links = 1;
    attributes.size = size;
    attributes.touch({1'700'000'000 + static_cast<int64_t>(id), 123'456'789});
    attributes.set_accessed(attributes.modified());
    attributes.set_born(attributes.modified());
    Record inode;
    inode.type = RecordType::kInode;
    inode.id = id;
    inode.body = body_of(attributes);
    apply(inode, 0);
    Record entry;
    entry.type = RecordType::kName;
    entry.id = next_++;
    entry.a = id;
    entry.b = parent;
    entry.name = name;
    apply(entry, 0);
    Record extent;
    extent.type = RecordType::kExtent;
    extent.id = id;
    apply(extent, static_cast<uint32_t>(size));
    return id;
  }
  void apply(Record& record, uint32_t payload) {
    record.sequence = sequence_++;
    const uint32_t meta = 96;
    index_.apply(record, {log::Position::at(file_, offset_), meta, payload},
                 Index::Mode::kLogOrder);
    offset_ += meta + log::round_up(payload, 8);
    if (offset_ > (256u << 20)) {
      file_++;
      offset_ = 4096;
    }
  }
  Index& index() { return index_; }

 private:
  Index index_;
  ObjectId next_ = kFirstObject;
  log::RecordSequence sequence_ = 1'000'000;
  log::FileId file_ = 7;
  uint64_t offset_ = 4096;
};

TEST(IndexBudget, AFileTakes128BytesAndItsName) {
  constexpr uint64_t kFiles = 400'000;
  Filled filled;
  uint64_t names = 0;
  for (uint64_t i = 0; i < kFiles; i++) {
    const std::string name = "thumbnail-" + std::to_string(i);
    names += name.size();
    filled.create(kRoot, name, 1000);
  }
  const auto root = filled.index().find(kRoot);
  const uint64_t bytes = filled.index().memory();
  EXPECT_LE(bytes, kFiles * 128 + names);
  std::cout << static_cast<double>(bytes - names) / kFiles << " bytes a file and its name\n";
  EXPECT_EQ(root->child_count(), kFiles);
}

TEST(IndexRows, ComeBackAsTheyWere) {
  std::mt19937_64 random(1);
  const auto number = [&] { return random() >> random() % 64; };
  for (uint64_t i = 0; i < with_effort(20'000); i++) {
    Index index;
    Inode from;
    from.id = number() | 1;
    from.sequence = number();
    if (i % 3 != 0) from.base = {number() | 1};
    from.base_sequence = from.base ? number() : 0;
    Attributes& a = from.attributes;
    a.mode = static_cast<uint32_t>(number());
    a.uid = static_cast<uint32_t>(number());
    a.gid = static_cast<uint32_t>(number());
    a.links = static_cast<uint32_t>(number());
    a.device = i % 2 == 0 ? 0 : number();
    a.blob = i % 2 == 0 ? 0 : number();
    const auto time = [&]() -> Time {
      return {static_cast<int64_t>(number() - number()),
              static_cast<uint32_t>(random() % 1'000'000'000)};
    };
    a.set_modified(time());
    a.set_changed(i % 2 == 0 ? a.modified() : time());
    a.set_accessed(i % 5 == 0 ? a.modified() : time());
    a.set_born(i % 7 == 0 ? a.modified() : time());
    from.sums = i % 2 == 0;
    from.damaged = i % 3 == 0;
    from.lossy = i % 5 == 0;
    std::vector<Extent> extents;
    uint64_t end = i % 4 == 0 ? 0 : number() >> 8;
    for (int e = 0; e < static_cast<int>(i % 5) - 1; e++) {
      const uint64_t meta = 72 + random() % 1000;
      const uint64_t length = 1 + random() % 4'000'000;
      const uint64_t skip = i % 2 == 0 ? 0 : random() % 1000;
      const bool compressed = random() % 4 == 0;
      extents.push_back(
          {end, length, (compressed ? 0 : meta) + skip, compressed, meta, {number() | 1}});
      end += length + random() % 3;
    }
    a.size = i % 3 == 0 || extents.empty() ? number() : extents.back().end();
    index.restore_inode(from, extents);
    const auto back = index.find(from.id);
    ASSERT_TRUE(back);
    EXPECT_EQ(back->id, from.id);
    EXPECT_EQ(back->sequence, from.sequence);
    EXPECT_EQ(back->base, from.base);
    EXPECT_EQ(back->base_sequence, from.base_sequence);
    EXPECT_EQ(back->attributes, from.attributes);
    EXPECT_EQ(back->sums, from.sums);
    EXPECT_EQ(back->damaged, from.damaged);
    EXPECT_EQ(back->lossy, from.lossy);
    ASSERT_EQ(back->extents().all().size(), extents.size());
    for (size_t e = 0; e < extents.size(); e++) {
      EXPECT_EQ(std::memcmp(&back->extents().all()[e], &extents[e], sizeof(Extent)), 0);
    }
    if (HasFailure()) return;
  }
}

TEST(IndexRows, HoldsAndNamesStayWithAnInodeThatChanges) {
  Filled filled;
  const ObjectId id = filled.create(kRoot, "a", 100);
  filled.index().find(id)->hold();
  filled.index().find(id)->hold();
  filled.index().update(id, [](Inode& inode) {  // to a row of another size
    inode.attributes.device = UINT64_MAX;
    inode.attributes.set_changed({-5, 7});
  });
  const auto inode = filled.index().find(id);
  EXPECT_EQ(inode->holds(), 2u);
  EXPECT_EQ(inode->release(1), 2u);
  EXPECT_EQ(filled.index().find(id)->holds(), 1u);
  EXPECT_EQ(filled.index().path_of(id), "a");
}

TEST(IndexArena, PiecesDoNotOverlap) {
  std::mt19937_64 random(2);
  Arena arena;
  struct Piece {
    size_t bytes;
    std::byte mark;
  };
  std::map<Arena::Ref, Piece> pieces;
  const auto check = [&](Arena::Ref ref, const Piece& piece) {
    for (size_t i = 0; i < piece.bytes; i++) ASSERT_EQ(arena.at(ref)[i], piece.mark);
  };
  for (uint64_t i = 0; i < with_effort(30'000); i++) {
    if (random() % 3 != 0 || pieces.empty()) {
      const size_t bytes = 1 + random() % (random() % 100 == 0 ? Arena::kLargest : 300);
      const Piece piece{bytes, static_cast<std::byte>(1 + random() % 255)};
      const Arena::Ref ref = arena.allocate(bytes);
      ASSERT_NE(ref, Arena::kNone);
      ASSERT_TRUE(pieces.emplace(ref, piece).second);
      std::memset(arena.at(ref), static_cast<int>(piece.mark), Arena::rounded(bytes));
    } else {
      const auto at = std::next(
          pieces.begin(), static_cast<ptrdiff_t>(random() % std::min<size_t>(pieces.size(), 50)));
      check(at->first, at->second);
      arena.free(at->first, at->second.bytes);
      pieces.erase(at);
    }
  }
  for (const auto& [ref, piece] : pieces) check(ref, piece);
}

TEST(IndexChildren, AreAMap) {
  for (const uint64_t spread : {uint64_t{2}, uint64_t{1000}, uint64_t{1} << 40}) {
    std::mt19937_64 random(spread);
    Children children;
    std::map<uint64_t, Arena::Ref> model;
    uint64_t newest = 16;
    for (int i = 0; i < 60'000; i++) {
      const bool shrinks = i / 10'000 % 2 == 1;
      if (random() % 4 != 0 && !shrinks) {
        newest += 1 + random() % spread;
        const uint64_t cookie = random() % 3 != 0 ? newest : 16 + random() % newest;
        const auto name = static_cast<Arena::Ref>(i + 1);
        EXPECT_EQ(children.insert({cookie, name}), model.emplace(cookie, name).second);
      } else if (!model.empty()) {
        auto at = model.lower_bound(random() % newest);
        if (at == model.end()) at = model.begin();
        children.erase(at->first);
        children.erase(at->first + 1'000'000'007);  // is not there
        model.erase(at->first + 1'000'000'007);
        model.erase(at);
      }
      const uint64_t from = random() % (newest + 2);
      const auto next = model.upper_bound(from);
      const Children::Child wanted =
          next == model.end() ? Children::Child{} : Children::Child{next->first, next->second};
      ASSERT_EQ(children.after(from), wanted) << i;
      ASSERT_EQ(children.size(), model.size());
    }
    uint64_t at = 0;
    for (const auto& [cookie, name] : model) {
      ASSERT_EQ(children.after(at), (Children::Child{cookie, name}));
      ASSERT_EQ(children.find(cookie), name);
      at = cookie;
    }
    EXPECT_EQ(children.after(at), Children::Child{});
    EXPECT_EQ(children.after(UINT64_MAX), Children::Child{});
  }
}

// What a checkpoint relies on: the table may grow while it is walked.
TEST(IndexWalk, SeesEveryInodeThatWasThere) {
  Filled filled;
  std::map<ObjectId, int> seen;
  for (int i = 0; i < 1000; i++) seen[filled.create(kRoot, std::to_string(i), 10)] = 0;
  for (size_t bucket = 0; bucket < filled.index().inode_buckets(); bucket++) {
    filled.index().visit_inode_bucket(bucket, [&](const Inode& inode) {
      if (seen.count(inode.id) > 0) seen[inode.id]++;
    });
    if (bucket % 3 == 0) filled.create(kRoot, "new" + std::to_string(bucket), 10);
    if (bucket > 100'000) break;
  }
  for (const auto& [id, times] : seen) EXPECT_GE(times, 1) << id;
}

}  // namespace
}  // namespace valfs::index
