// The choices of the simulated disk: one seed, the same choices on every machine.
#pragma once

#include <cstdint>

namespace valfs::storage {

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). Not <random>, whose distributions differ from
// library to library.
class SimRandom {
 public:
  explicit SimRandom(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t mixed = state_;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    return mixed ^ (mixed >> 31);
  }
  // In [0, bound). `bound` is not 0.
  uint64_t below(uint64_t bound) { return next() % bound; }
  bool coin() { return (next() & 1) != 0; }

 private:
  uint64_t state_;
};

// How many of `count` successive things survive a crash. Fair choices alone would hardly ever make
// the two extremes, everything and nothing, of something large; those are where bugs like to be.
class SimFate {
 public:
  explicit SimFate(SimRandom& random) : random_(random), mood_(random.below(4)) {}

  uint64_t survivors(uint64_t count) {
    if (mood_ == 0) return 0;
    if (mood_ == 1) return count;
    return random_.below(count + 1);
  }

 private:
  SimRandom& random_;
  const uint64_t mood_;
};

}  // namespace valfs::storage
