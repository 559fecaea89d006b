#include "engine/cache/lhd_policy.h"

#include <algorithm>
#include <bit>

#include "engine/base/check.h"

namespace valfs::cache {
namespace {

// Weight of the past in every moving average, and of old events at a reconfiguration.
constexpr double kDecay = 0.9;

// The ages of the table span this many times the number of residents, in requests.
constexpr double kSpan = 100;

// Keeps the span of the table below LhdTag::kNever; reached beyond 20 million residents only.
constexpr uint32_t kMaxShift = 19;

// Reconfigurations in which the first estimates of the span settle.
constexpr uint64_t kSettling = 4;

// Even if next to nothing is evicted: 2^20 / (1 - kDecay) events are below the 2^24 up to which
// the counters of the table are exact.
constexpr uint64_t kLatestReconfiguration = uint64_t{1} << 20;

// One access in 32 makes an explorer, while explorers hold less than 1 % of the capacity. They
// stay long enough to show what nobody would see otherwise: hits at ages that all else is evicted
// before. On a cyclic scan this is how the policy learns at all.
constexpr uint32_t kAccessesPerExplorer = 32;
constexpr uint64_t kExplorerShare = 100;

// 4,096 ages give tables of 2.3 MiB, which only a large cache earns back; 1,024 cost about 0.4 %
// more misses.
constexpr uint32_t kMinAges = 256;
constexpr uint32_t kMaxAges = 4096;
constexpr uint64_t kCapacityPerAge = 16 * 1024;

uint32_t ages_for(const LhdOptions& options) {
  if (options.ages != 0) return options.ages;
  const uint64_t ages = std::bit_floor(options.capacity_bytes / kCapacityPerAge);
  return static_cast<uint32_t>(std::clamp<uint64_t>(ages, kMinAges, kMaxAges));
}

}  // namespace

LhdPolicy::LhdPolicy(const LhdOptions& options)
    : cost_bytes_(options.cost_bytes),
      reconfigure_requests_(options.reconfigure_requests),
      table_(kClasses, ages_for(options)),
      random_(options.seed),
      explorer_allowance_(static_cast<int64_t>(options.capacity_bytes / kExplorerShare)) {
  VALFS_CHECK(std::has_single_bit(table_.ages()) && table_.ages() <= kMaxAges);
}

void LhdPolicy::tick(size_t residents) {
  ++now_;
  if (is_due(residents)) reconfigure(residents);
}

LhdTag LhdPolicy::admit(uint64_t charge) {
  LhdTag tag;
  tag.last_access = now_;
  tag.explorer = explore(charge);
  return tag;
}

void LhdPolicy::hit(LhdTag& tag, uint64_t charge) {
  table_.record_hit(class_of(tag), age_of(tag));
  release(tag, charge);
  start_lifetime(tag, charge);
}

void LhdPolicy::overwrite(LhdTag& tag, uint64_t old_charge, uint64_t new_charge) {
  remove(tag, old_charge);
  start_lifetime(tag, new_charge);
}

void LhdPolicy::evict(const LhdTag& tag, uint64_t charge) {
  // An object in overflow counts as worth nothing here, not as its rank of minus infinity, from
  // which the average would take hundreds of evictions to come back.
  victim_worth_ = kDecay * victim_worth_ + (1 - kDecay) * worth(tag, age_of(tag), charge);
  ++evictions_;
  remove(tag, charge);
}

void LhdPolicy::remove(const LhdTag& tag, uint64_t charge) {
  table_.record_end(class_of(tag), age_of(tag));
  release(tag, charge);
}

bool LhdPolicy::is_doubtful(const LhdTag& tag, uint64_t charge) const {
  return !tag.explorer && worth(tag, age_of(tag), charge) < victim_worth_;
}

void LhdPolicy::start_lifetime(LhdTag& tag, uint64_t charge) {
  tag.previous_age = tag.latest_age;
  tag.latest_age =
      static_cast<uint32_t>(std::min<uint64_t>(now_ - tag.last_access, LhdTag::kNever));
  tag.last_access = now_;
  tag.accesses = static_cast<uint8_t>(std::min<int>(tag.accesses + 1, kManyAccesses));
  tag.explorer = explore(charge);
}

bool LhdPolicy::explore(uint64_t charge) {
  if (random_.below(kAccessesPerExplorer) != 0 || explorer_allowance_ <= 0) return false;
  explorer_allowance_ -= static_cast<int64_t>(charge);
  return true;
}

void LhdPolicy::release(const LhdTag& tag, uint64_t charge) {
  if (tag.explorer) explorer_allowance_ += static_cast<int64_t>(charge);
}

// Not before half of the residents were replaced: until then most lifetimes still run, and those
// that ended are the short ones.
bool LhdPolicy::is_due(size_t residents) const {
  const uint64_t requests = now_ - last_reconfiguration_;
  if (requests < reconfigure_requests_) return false;
  const bool turned_over = evictions_ > 0 && 2 * evictions_ >= residents;
  return turned_over || requests >= kLatestReconfiguration;
}

void LhdPolicy::reconfigure(size_t residents) {
  ++reconfigurations_;
  last_reconfiguration_ = now_;
  evictions_ = 0;
  table_.decay(static_cast<float>(kDecay));
  change_shift(wanted_shift(residents));
  table_.learn();
}

uint32_t LhdPolicy::wanted_shift(size_t residents) {
  residents_average_ = kDecay * residents_average_ + (1 - kDecay) * static_cast<double>(residents);
  residents_weight_ = kDecay * residents_weight_ + (1 - kDecay);
  const double requests_per_age = kSpan * (residents_average_ / residents_weight_) / table_.ages();
  uint32_t shift = 0;
  while (shift < kMaxShift && static_cast<double>(uint64_t{1} << shift) < requests_per_age) ++shift;
  return shift;
}

// Too short a span makes residents overflow, so it grows at once; once settled it shrinks only
// when it is at least four times too long, because every change blurs the histograms.
void LhdPolicy::change_shift(uint32_t wanted) {
  if (wanted > shift_) {
    table_.coarsen(wanted - shift_);
    shift_ = wanted;
  } else if (wanted < shift_ && (reconfigurations_ <= kSettling || wanted + 2 <= shift_)) {
    table_.refine(shift_ - wanted);
    shift_ = wanted;
  }
}

}  // namespace valfs::cache
