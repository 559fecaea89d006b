#include "engine/cache/residents.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace valfs::cache {
namespace {

constexpr size_t kFirstBuckets = 64;

}  // namespace

// for_overwrite: every byte is written next, no need to zero it first.
Entry::Entry(const CacheKey& of, std::span<const std::byte> contents)
    : key(of),
      size(contents.size()),
      bytes(std::make_unique_for_overwrite<std::byte[]>(contents.size())) {
  std::ranges::copy(contents, bytes.get());
}

Residents::Residents() : index_(Index::bucket_traits(&first_bucket_, 1)) {}

Entry* Residents::find(const CacheKey& key) {
  const auto found = index_.find(key);
  return found == index_.end() ? nullptr : &*found;
}

Slot& Residents::add(std::unique_ptr<Entry> entry, const LhdTag& tag) {
  if (kBucketsPerEntry * count_ >= buckets_.size()) grow_index();
  if (count_ == blocks_.size() * kBlock) blocks_.push_back(std::make_unique<Slot[]>(kBlock));
  entry->slot = count_++;
  const bool is_new = index_.insert(*entry).second;
  VALFS_CHECK(is_new);
  const uint64_t charge = entry->charge();
  bytes_ += charge;
  Slot& slot = slot_of(*entry);
  slot = {tag, static_cast<uint32_t>(charge), std::move(entry)};
  return slot;
}

std::unique_ptr<Entry> Residents::remove(Entry& entry) {
  index_.erase(index_.iterator_to(entry));
  bytes_ -= entry.charge();
  Slot& freed = slot_of(entry);
  Slot& last = at(count_ - 1);
  last.entry->slot = entry.slot;
  std::swap(freed, last);
  std::unique_ptr<Entry> removed = std::move(last.entry);
  last = {};
  count_--;
  if (blocks_.size() * kBlock - count_ >= 2 * kBlock) blocks_.pop_back();
  return removed;
}

void Residents::clear() {
  index_.clear();
  blocks_.clear();
  count_ = 0;
  bytes_ = 0;
}

void Residents::grow_index() {
  std::vector<Index::bucket_type> larger(std::max(kFirstBuckets, buckets_.size() * 2));
  index_.rehash(Index::bucket_traits(larger.data(), larger.size()));
  buckets_ = std::move(larger);
}

}  // namespace valfs::cache
