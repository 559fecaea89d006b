#include "engine/cache/residents.h"

#include <algorithm>
#include <new>
#include <utility>

#include "engine/base/check.h"

namespace valfs::cache {
namespace {

constexpr size_t kFirstBuckets = 64;

}  // namespace

EntryPointer Entry::make(const CacheKey& key, std::span<const std::byte> contents) {
  void* const memory = ::operator new(sizeof(Entry) + contents.size());
  EntryPointer entry(new (memory) Entry(key, contents.size()));
  std::ranges::copy(contents, reinterpret_cast<std::byte*>(entry.get() + 1));
  return entry;
}

void EntryDeleter::operator()(Entry* entry) const {
  entry->~Entry();
  ::operator delete(entry);
}

Residents::Residents() : index_(Index::bucket_traits(&first_bucket_, 1)) {}

Entry* Residents::find(const CacheKey& key) {
  const auto found = index_.find(key);
  return found == index_.end() ? nullptr : &*found;
}

Slot& Residents::add(EntryPointer entry, const LhdTag& tag) {
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

EntryPointer Residents::remove(Entry& entry) {
  index_.erase(index_.iterator_to(entry));
  bytes_ -= entry.charge();
  Slot& freed = slot_of(entry);
  Slot& last = at(count_ - 1);
  last.entry->slot = entry.slot;
  std::swap(freed, last);
  EntryPointer removed = std::move(last.entry);
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
