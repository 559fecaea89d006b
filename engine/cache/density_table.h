// What LHD has learned: how lifetimes ended, and the hit densities that follow from it.
//
// A lifetime starts when an object is admitted or hit and ends with its next hit, its eviction or
// its deletion. The table counts these ends by class and (coarse) age, and from them estimates
//
//     density[class][age] = P(hit | reached age) / E[remaining lifetime | reached age],
//
// the hits to expect for each unit of time that the object stays (Beckmann, Chen, Cidon: LHD:
// Improving Cache Hit Rate by Maximizing Hit Density, NSDI 2018).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace valfs::cache {

// Not thread-safe. The last age is the overflow bucket: that age and all above.
class DensityTable {
 public:
  // Allocates nothing: the histograms appear with the first event, the densities with learn().
  DensityTable(uint32_t classes, uint32_t ages);

  void record_hit(uint32_t cls, uint32_t age) { at(cls, age).hits += 1; }
  // A lifetime that ended without a hit.
  void record_end(uint32_t cls, uint32_t age) { at(cls, age).ends += 1; }

  // Weighs what was counted so far less against what comes.
  void decay(float factor);
  // From now on an age stands for 2^steps ages of before: merges neighbours.
  void coarsen(uint32_t steps);
  // From now on 2^steps ages stand for an age of before: spreads each evenly, and pours what lies
  // beyond the new range into the overflow bucket.
  void refine(uint32_t steps);
  // Computes the densities of all that was counted. Without any event it changes nothing.
  void learn();

  [[nodiscard]] bool learned() const { return !densities_.empty(); }
  // Only once learned().
  [[nodiscard]] float density(uint32_t cls, uint32_t age) const {
    return densities_[index(cls, age)];
  }
  [[nodiscard]] float hits(uint32_t cls, uint32_t age) const;
  [[nodiscard]] float ends(uint32_t cls, uint32_t age) const;
  [[nodiscard]] uint32_t ages() const { return ages_; }

 private:
  // Single precision is exact up to 2^24 events; the policy decays often enough to stay below.
  struct Events {
    float hits = 0;
    float ends = 0;
    void add(const Events& other, float share = 1) {
      hits += other.hits * share;
      ends += other.ends * share;
    }
  };

  // One age of the prior: double, because it sums all classes.
  struct Prior {
    double hits = 0;
    double lifetimes = 0;
  };

  [[nodiscard]] size_t index(uint32_t cls, uint32_t age) const { return size_t{cls} * ages_ + age; }
  Events& at(uint32_t cls, uint32_t age) {
    if (events_.empty()) events_.resize(size_t{classes_} * ages_);
    return events_[index(cls, age)];
  }
  // The histogram of class `cls`; empty while nothing was recorded.
  [[nodiscard]] std::span<Events> row(uint32_t cls);
  [[nodiscard]] std::vector<Prior> prior() const;
  void learn_class(uint32_t cls, std::span<const Prior> prior);

  uint32_t classes_;
  uint32_t ages_;
  std::vector<Events> events_;
  std::vector<float> densities_;
};

}  // namespace valfs::cache
