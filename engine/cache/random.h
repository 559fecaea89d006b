// Cheap random numbers for sampling, and the mixing function they are made of.
#pragma once

#include <cstdint>

namespace valfs::cache {

// A bijection in which every bit of the result depends on every bit of `x`: the output step of
// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
[[nodiscard]] constexpr uint64_t mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// SplitMix64: eight bytes of state, so that a cache that is created costs nothing. Not thread-safe.
class Random {
 public:
  explicit constexpr Random(uint64_t seed) : state_(seed) {}

  // Even over [0, bound) up to a bias of bound / 2^32. Takes the high bits and multiplies: the low
  // bits modulo `bound` would show every weakness of the generator.
  [[nodiscard]] constexpr uint32_t below(uint32_t bound) {
    state_ += 0x9e3779b97f4a7c15u;
    return static_cast<uint32_t>(((mix64(state_) >> 32) * bound) >> 32);
  }

 private:
  uint64_t state_;
};

}  // namespace valfs::cache
