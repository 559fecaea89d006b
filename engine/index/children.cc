#include "engine/index/children.h"

#include <algorithm>

namespace valfs::index {
namespace {

constexpr size_t kLeafEntries = 128;
constexpr uint64_t kLeafSpan = uint64_t{1} << 32;

}  // namespace

// The last leaf that may hold the cookie; 0 if it comes before all of them.
size_t Children::leaf_of(Cookie cookie) const {
  // Most of the time the name is new, or among the newest.
  if (!leaves_.empty() && cookie >= leaves_.back().first) return leaves_.size() - 1;
  const auto next =
      std::upper_bound(leaves_.begin(), leaves_.end(), cookie,
                       [](Cookie wanted, const Leaf& leaf) { return wanted < leaf.first; });
  return next == leaves_.begin() ? 0 : static_cast<size_t>(next - leaves_.begin()) - 1;
}

// The first entry of the leaf with that cookie or a higher one.
std::vector<Children::Entry>::const_iterator Children::place_in(const Leaf& leaf, Cookie cookie) {
  if (cookie <= leaf.first) return leaf.entries.begin();
  if (cookie - leaf.first >= kLeafSpan) return leaf.entries.end();
  return std::lower_bound(
      leaf.entries.begin(), leaf.entries.end(), static_cast<uint32_t>(cookie - leaf.first),
      [](const Entry& entry, uint32_t wanted) { return entry.cookie < wanted; });
}

// Entries from `at` on go to a leaf of their own.
void Children::split(size_t index, size_t at) {
  Leaf& leaf = leaves_[index];
  Leaf rest;
  rest.first = leaf.first + leaf.entries[at].cookie;
  rest.entries.reserve(kLeafEntries);
  for (size_t i = at; i < leaf.entries.size(); i++) {
    const Cookie cookie = leaf.first + leaf.entries[i].cookie;
    rest.entries.push_back({static_cast<uint32_t>(cookie - rest.first), leaf.entries[i].name});
  }
  leaf.entries.resize(at);
  leaves_.insert(leaves_.begin() + static_cast<ptrdiff_t>(index) + 1, std::move(rest));
}

bool Children::insert(const Child& child) {
  size_t index = leaf_of(child.cookie);
  if (leaves_.empty() || child.cookie < leaves_[index].first) {
    leaves_.insert(leaves_.begin(), {child.cookie, {{0, child.name}}});
    size_++;
    return true;
  }
  const auto place = place_in(leaves_[index], child.cookie);
  const auto at = static_cast<size_t>(place - leaves_[index].entries.begin());
  const auto& entries = leaves_[index].entries;
  const uint64_t delta = child.cookie - leaves_[index].first;
  const bool taken = place != entries.end() && place->cookie == delta && delta < kLeafSpan;
  if (taken) return false;
  size_++;
  const bool last = at == entries.size();
  if (last && (delta >= kLeafSpan || entries.size() >= kLeafEntries)) {
    leaves_.insert(leaves_.begin() + static_cast<ptrdiff_t>(index) + 1,
                   {child.cookie, {{0, child.name}}});
    return true;
  }
  if (entries.size() >= kLeafEntries) {
    constexpr size_t kHalf = kLeafEntries / 2;
    split(index, kHalf);
    if (at > kHalf) index++;
  }
  Leaf& leaf = leaves_[index];
  leaf.entries.insert(place_in(leaf, child.cookie),
                      {static_cast<uint32_t>(child.cookie - leaf.first), child.name});
  return true;
}

Arena::Ref Children::find(Cookie cookie) const {
  const Child next = cookie == 0 ? Child{} : after(cookie - 1);
  return next.cookie == cookie ? next.name : Arena::kNone;
}

void Children::erase(Cookie cookie) {
  if (leaves_.empty()) return;
  const size_t index = leaf_of(cookie);
  Leaf& leaf = leaves_[index];
  const auto place = place_in(leaf, cookie);
  if (place == leaf.entries.end() || leaf.first + place->cookie != cookie) return;
  leaf.entries.erase(place);
  size_--;
  if (leaf.entries.empty()) {
    leaves_.erase(leaves_.begin() + static_cast<ptrdiff_t>(index));
  } else if (leaf.entries.size() < kLeafEntries / 4 && index + 1 < leaves_.size()) {
    merge(index);
  }
}

// Takes in the next leaf, if both together fill no more than half of one: so a directory that was
// large takes little once it is small.
void Children::merge(size_t index) {
  Leaf& leaf = leaves_[index];
  const Leaf& next = leaves_[index + 1];
  const uint64_t shift = next.first - leaf.first;
  const bool fits = leaf.entries.size() + next.entries.size() <= kLeafEntries / 2 &&
                    shift + next.entries.back().cookie < kLeafSpan;
  if (!fits) return;
  for (const Entry& entry : next.entries) {
    leaf.entries.push_back({static_cast<uint32_t>(shift + entry.cookie), entry.name});
  }
  leaves_.erase(leaves_.begin() + static_cast<ptrdiff_t>(index) + 1);
}

Children::Child Children::after(Cookie cookie) const {
  if (cookie == UINT64_MAX) return {};
  for (size_t index = leaf_of(cookie); index < leaves_.size(); index++) {
    const Leaf& leaf = leaves_[index];
    const auto place = place_in(leaf, cookie + 1);
    if (place != leaf.entries.end()) return {leaf.first + place->cookie, place->name};
  }
  return {};
}

uint64_t Children::memory() const {
  uint64_t sum = leaves_.capacity() * sizeof(Leaf);
  for (const Leaf& leaf : leaves_) sum += leaf.entries.capacity() * sizeof(Entry);
  return sum;
}

}  // namespace valfs::index
