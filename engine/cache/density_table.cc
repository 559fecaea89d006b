#include "engine/cache/density_table.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"

namespace valfs::cache {
namespace {

// The weight of the prior, in events. Without one a class that nobody was seen in has density 0,
// its objects are evicted at once, and it stays unseen for ever.
constexpr double kPriorEvents = 20;

// Fewer lifetimes than this are rounding errors of decayed counters.
constexpr double kNoLifetimes = 1e-5;

}  // namespace

DensityTable::DensityTable(uint32_t classes, uint32_t ages) : classes_(classes), ages_(ages) {
  VALFS_CHECK(classes > 0 && ages > 1);
}

std::span<DensityTable::Events> DensityTable::row(uint32_t cls) {
  if (events_.empty()) return {};
  return std::span(events_).subspan(index(cls, 0), ages_);
}

float DensityTable::hits(uint32_t cls, uint32_t age) const {
  return events_.empty() ? 0 : events_[index(cls, age)].hits;
}

float DensityTable::ends(uint32_t cls, uint32_t age) const {
  return events_.empty() ? 0 : events_[index(cls, age)].ends;
}

void DensityTable::decay(float factor) {
  for (Events& events : events_) {
    events.hits *= factor;
    events.ends *= factor;
  }
}

void DensityTable::coarsen(uint32_t steps) {
  for (uint32_t cls = 0; cls < classes_; ++cls) {
    const std::span<Events> ages = row(cls);
    // Every bucket moves exactly once, the overflow bucket too: counted both in its group and in
    // its old place it would be there twice. An object in overflow is evicted as soon as it is
    // seen, so the ages counted there are close to the first that overflows.
    for (size_t age = 0; age < ages.size(); ++age) {
      const Events moved = std::exchange(ages[age], {});
      ages[age >> steps].add(moved);
    }
  }
}

void DensityTable::refine(uint32_t steps) {
  const uint64_t width = uint64_t{1} << steps;
  const uint64_t overflow = ages_ - 1;
  const float share = 1.0f / static_cast<float>(width);
  for (uint32_t cls = 0; cls < classes_; ++cls) {
    const std::span<Events> ages = row(cls);
    // Downwards: the targets of a bucket lie at or above it, where all is moved already.
    for (uint64_t age = ages.size(); age-- > 0;) {
      const Events moved = std::exchange(ages[age], {});
      const uint64_t begin = std::min(age << steps, overflow);
      const uint64_t end = std::min((age << steps) + width, overflow);
      for (uint64_t target = begin; target < end; ++target) ages[target].add(moved, share);
      ages[overflow].add(moved, share * static_cast<float>(width - (end - begin)));
    }
  }
}

std::vector<DensityTable::Prior> DensityTable::prior() const {
  if (events_.empty()) return {};
  std::vector<Prior> sums(ages_);
  double total = 0;
  for (uint32_t cls = 0; cls < classes_; ++cls) {
    for (uint32_t age = 0; age < ages_; ++age) {
      const Events& events = events_[index(cls, age)];
      const double lifetimes = double{events.hits} + double{events.ends};
      sums[age].hits += double{events.hits};
      sums[age].lifetimes += lifetimes;
      total += lifetimes;
    }
  }
  if (total < kNoLifetimes) return {};
  for (Prior& sum : sums) {
    sum.hits *= kPriorEvents / total;
    sum.lifetimes *= kPriorEvents / total;
  }
  return sums;
}

void DensityTable::learn_class(uint32_t cls, std::span<const Prior> prior) {
  const std::span<const Events> own = row(cls);
  double hits = 0;       // lifetimes that end with a hit at this age or later
  double lifetimes = 0;  // lifetimes that reach this age
  double remaining = 0;  // the time that is left to all of them together, this age included
  for (uint32_t age = ages_; age-- > 0;) {
    hits += double{own[age].hits} + prior[age].hits;
    lifetimes += double{own[age].hits} + double{own[age].ends} + prior[age].lifetimes;
    remaining += lifetimes;
    densities_[index(cls, age)] =
        lifetimes > kNoLifetimes ? static_cast<float>(hits / remaining) : 0;
  }
}

void DensityTable::learn() {
  const std::vector<Prior> shared = prior();
  if (shared.empty()) return;
  densities_.resize(events_.size());
  for (uint32_t cls = 0; cls < classes_; ++cls) learn_class(cls, shared);
}

}  // namespace valfs::cache
