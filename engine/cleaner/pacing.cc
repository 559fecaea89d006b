#include "engine/cleaner/pacing.h"

#include <algorithm>

namespace valfs::cleaner {
namespace {

constexpr uint64_t kBegin = 15;  // percent of live bytes
constexpr uint64_t kSlow = 20;
constexpr uint64_t kDear = 23;
// A write at kDear waits for so many times its bytes.
constexpr uint64_t kPrice = 2;
// A volume with less than this is treated as if it had so much: else every commit of a few bytes
// would have to be cleaned up at once. What may be dead then is what one log file of the smallest
// size takes, half of what the bound allows besides its share of the live bytes.
constexpr uint64_t kLeastLive = 64 * kMiB;
constexpr std::chrono::milliseconds kLongestRest{50};

}  // namespace

uint64_t Pacing::share_of_live(uint64_t percent) const {
  const uint64_t file = core_.options.log_file_size;
  const uint64_t least = file > 0 ? 2 * file : kLeastLive;
  return std::max(core_.live_bytes(), least) / 100 * percent;
}

uint64_t Pacing::slice() const {
  if (core_.options.clean_slice > 0) return core_.options.clean_slice;
  return std::clamp(core_.live_bytes() / 64, 256 * kKiB, 8 * kMiB);
}

bool Pacing::wanted() const {
  return core_.dead_bytes() > share_of_live(kBegin);
}

uint64_t Pacing::debt() const {
  const uint64_t dead = core_.dead_bytes();
  const uint64_t left = share_of_live(kBegin);
  return dead > left ? dead - left : 0;
}

std::chrono::milliseconds Pacing::rest() const {
  const uint64_t dead = core_.dead_bytes();
  const uint64_t slow = share_of_live(kSlow);
  if (dead >= slow) return {};
  return kLongestRest * (slow - dead) / std::max<uint64_t>(slow - share_of_live(kBegin), 1);
}

bool Pacing::free_of_charge(uint64_t bytes) const {
  return core_.dead_bytes() + bytes <= share_of_live(kSlow);
}

uint64_t Pacing::price(uint64_t bytes) const {
  const uint64_t slow = share_of_live(kSlow);
  const uint64_t dear = share_of_live(kDear);
  const uint64_t dead = std::min(core_.dead_bytes() + bytes, dear);
  if (dead <= slow) return 0;
  return kPrice * bytes * (dead - slow) / (dear - slow);
}

void Pacing::admit(uint64_t bytes) {
  if (free_of_charge(bytes)) return;
  std::unique_lock lock(mutex_);
  claimed_ = std::max(claimed_, given_) + price(bytes);
  const uint64_t mine = claimed_;
  changed_.wait(lock, [&] { return given_ >= mine || stopped_ || free_of_charge(bytes); });
}

void Pacing::gave(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  given_ += bytes;
  changed_.notify_all();
}

void Pacing::release() {
  const std::lock_guard lock(mutex_);
  given_ = std::max(given_, claimed_);
  changed_.notify_all();
}

void Pacing::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
}

}  // namespace valfs::cleaner
