#include "engine/log/retired.h"

#include <algorithm>
#include <cstring>

namespace valfs::log {

void Retired::add(Interval interval) {
  if (interval.first == 0 || interval.first > interval.last) return;
  if (interval.last == UINT64_MAX) return;  // no log has so many, and nothing could follow it
  auto at = intervals_.upper_bound(interval.first);
  if (at != intervals_.begin() && std::prev(at)->second + 1 >= interval.first) --at;
  while (at != intervals_.end() && at->first <= interval.last + 1) {
    interval.first = std::min(interval.first, at->first);
    interval.last = std::max(interval.last, at->second);
    at = intervals_.erase(at);
  }
  intervals_[interval.first] = interval.last;
}

bool Retired::covers(GroupSequence group) const {
  return skip(group) != group;
}

GroupSequence Retired::skip(GroupSequence group) const {
  const auto after = intervals_.upper_bound(group);
  if (after == intervals_.begin()) return group;
  const auto& [first, last] = *std::prev(after);
  return group <= last ? last + 1 : group;
}

std::vector<Retired::Interval> Retired::intervals() const {
  std::vector<Interval> result;
  for (const auto& [first, last] : intervals_) result.push_back({first, last});
  return result;
}

void Retired::assign(std::span<const std::byte> body) {
  intervals_.clear();
  for (; body.size() >= sizeof(Interval); body = body.subspan(sizeof(Interval))) {
    Interval interval;
    std::memcpy(&interval, body.data(), sizeof interval);
    add(interval);
  }
}

}  // namespace valfs::log
