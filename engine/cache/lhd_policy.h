// The policy of the read cache: Least Hit Density (Beckmann, Chen, Cidon: LHD: Improving Cache Hit
// Rate by Maximizing Hit Density, NSDI 2018), ranked by what a miss costs.
//
// The policy knows tags and sizes, never keys or bytes. It tells how much each object is worth;
// the cache samples some objects and evicts the one that is worth least.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "engine/cache/density_table.h"
#include "engine/cache/random.h"

namespace valfs::cache {

// What the policy remembers of a resident object. Ages are in requests, so that they keep their
// meaning when the coarsening of ages changes.
struct LhdTag {
  static constexpr uint32_t kNever = UINT32_MAX;

  uint64_t last_access = 0;
  uint32_t latest_age = 0;         // age at its latest access
  uint32_t previous_age = kNever;  // age at the access before that
  uint8_t accesses = 1;            // since admission, counted up to LhdPolicy::kManyAccesses
  bool explorer = false;           // protected until its next access
};
static_assert(sizeof(LhdTag) <= 24);

struct LhdOptions {
  uint64_t capacity_bytes = 0;
  uint64_t seed = 1;
  // The fixed cost of a miss, in bytes that could be transferred in the same time.
  double cost_bytes = 160'000;
  // Buckets of age, a power of two; 0 chooses by capacity.
  uint32_t ages = 0;
  // Requests between two reconfigurations, at least.
  uint64_t reconfigure_requests = 16'384;
};

// Not thread-safe. Deterministic for a seed. `charge` is always what the object counts against the
// capacity, never 0, and must be the same from admission to departure.
class LhdPolicy {
 public:
  static constexpr uint8_t kManyAccesses = 8;
  // Classes by how fast an object is re-used; 0 is never or slowly, the last is fastest.
  static constexpr uint32_t kReuseClasses = 16;
  // Classes of all: one of objects accessed once, then kReuseClasses each of those accessed 2-3,
  // 4-7 and more times. (An object accessed once has no re-use to be classed by.)
  static constexpr uint32_t kClasses = 1 + 3 * kReuseClasses;

  explicit LhdPolicy(const LhdOptions& options);

  // A request begins. Learns from what happened so far whenever enough did.
  void tick(size_t residents);

  // The tag of a new object.
  [[nodiscard]] LhdTag admit(uint64_t charge);
  void hit(LhdTag& tag, uint64_t charge);
  // New contents for a resident: the old ones end without a hit, the object keeps its history.
  void overwrite(LhdTag& tag, uint64_t old_charge, uint64_t new_charge);
  // The object leaves because it ranked lowest.
  void evict(const LhdTag& tag, uint64_t charge);
  // The object was deleted: its lifetime ends without a hit, but it was no choice of the policy.
  void remove(const LhdTag& tag, uint64_t charge);
  // The object is dropped for a reason that says nothing about its like.
  void forget(const LhdTag& tag, uint64_t charge) { release(tag, charge); }

  // The lowest rank goes first.
  [[nodiscard]] double rank(const LhdTag& tag, uint64_t charge) const;
  // Whether a newcomer is worth less than what was evicted lately.
  [[nodiscard]] bool is_doubtful(const LhdTag& tag, uint64_t charge) const;

  // Hit densities before anything was learned.
  [[nodiscard]] static float initial_density(uint32_t cls, uint32_t age);
  [[nodiscard]] uint32_t class_of(const LhdTag& tag) const;
  [[nodiscard]] uint32_t age_of(const LhdTag& tag) const;

  // Bytes that explorers may still take; negative after a large one.
  [[nodiscard]] int64_t explorer_allowance() const { return explorer_allowance_; }
  [[nodiscard]] uint64_t reconfigurations() const { return reconfigurations_; }
  [[nodiscard]] uint32_t shift() const { return shift_; }
  [[nodiscard]] const DensityTable& table() const { return table_; }

 private:
  // Above any worth: a density is at most kReuseClasses * 2, times (K + size) / size.
  static constexpr double kExplorerRank = 1e15;

  [[nodiscard]] double worth(const LhdTag& tag, uint32_t age, uint64_t charge) const;
  void start_lifetime(LhdTag& tag, uint64_t charge);
  bool explore(uint64_t charge);
  void release(const LhdTag& tag, uint64_t charge);
  [[nodiscard]] bool is_due(size_t residents) const;
  void reconfigure(size_t residents);
  [[nodiscard]] uint32_t wanted_shift(size_t residents);
  void change_shift(uint32_t wanted);

  double cost_bytes_;
  uint64_t reconfigure_requests_;
  DensityTable table_;
  Random random_;

  uint64_t now_ = 0;     // requests so far
  uint32_t shift_ = 10;  // an age of the table is 2^shift_ requests
  int64_t explorer_allowance_;
  double victim_worth_ = 0;  // moving average of what victims were worth

  uint64_t reconfigurations_ = 0;
  uint64_t last_reconfiguration_ = 0;  // in requests
  uint64_t evictions_ = 0;             // since then
  double residents_average_ = 0;       // moving average over reconfigurations, from 0
  double residents_weight_ = 0;        // of what entered that average
};

// Inline is what an eviction does with each of its samples.

inline double LhdPolicy::rank(const LhdTag& tag, uint64_t charge) const {
  const uint32_t age = age_of(tag);
  // So old that the table cannot tell its density: older than almost all that was ever hit.
  if (age == table_.ages() - 1) return std::numeric_limits<double>::lowest();
  return worth(tag, age, charge) + (tag.explorer ? kExplorerRank : 0);
}

// The cost of a miss that the object is expected to save, by byte and time that it occupies: the
// paper ranks density / size, which saves objects; times (K + size) it saves time.
inline double LhdPolicy::worth(const LhdTag& tag, uint32_t age, uint64_t charge) const {
  if (age == table_.ages() - 1) return 0;
  const uint32_t cls = class_of(tag);
  const double density =
      double{table_.learned() ? table_.density(cls, age) : initial_density(cls, age)};
  const double size = static_cast<double>(charge);
  return density * (cost_bytes_ + size) / size;
}

inline float LhdPolicy::initial_density(uint32_t cls, uint32_t age) {
  const uint32_t reuse = cls == 0 ? 0 : (cls - 1) % kReuseClasses;
  return static_cast<float>(reuse + kReuseClasses + 1) / static_cast<float>(age + 1);
}

inline uint32_t LhdPolicy::age_of(const LhdTag& tag) const {
  const uint64_t age = (now_ - tag.last_access) >> shift_;
  return static_cast<uint32_t>(std::min<uint64_t>(age, table_.ages() - 1));
}

// By frequency, and by the doublings that the sum of the latest two ages needs to reach the span.
inline uint32_t LhdPolicy::class_of(const LhdTag& tag) const {
  if (tag.accesses < 2) return 0;
  const auto frequency = static_cast<uint32_t>(std::bit_width(tag.accesses)) - 2;
  const uint64_t age = uint64_t{tag.latest_age} + tag.previous_age;
  const uint64_t span = uint64_t{table_.ages()} << shift_;
  uint32_t reuse = kReuseClasses - 1;
  if (age >= span) {
    reuse = 0;
  } else if (age > 0) {
    // Both are compared by their highest bit: the span is a power of two.
    const auto doublings = static_cast<uint32_t>(std::bit_width(span) - std::bit_width(age));
    reuse = std::min(doublings, reuse);
  }
  return 1 + frequency * kReuseClasses + reuse;
}

}  // namespace valfs::cache
