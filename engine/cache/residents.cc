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
  if (slots_.size() >= buckets_.size()) grow_index();
  entry->slot = slots_.size();
  const bool is_new = index_.insert(*entry).second;
  VALFS_CHECK(is_new);
  const uint64_t charge = entry->charge();
  bytes_ += charge;
  slots_.push_back({tag, charge, std::move(entry)});
  return slots_.back();
}

void Residents::remove(Entry& entry) {
  const size_t slot = entry.slot;
  index_.erase(index_.iterator_to(entry));
  bytes_ -= entry.charge();
  std::swap(slots_[slot], slots_.back());
  slots_[slot].entry->slot = slot;
  slots_.pop_back();
}

void Residents::clear() {
  index_.clear();
  slots_.clear();
  bytes_ = 0;
}

void Residents::grow_index() {
  std::vector<Index::bucket_type> larger(std::max(kFirstBuckets, buckets_.size() * 2));
  index_.rehash(Index::bucket_traits(larger.data(), larger.size()));
  buckets_ = std::move(larger);
}

}  // namespace valfs::cache
