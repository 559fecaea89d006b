#include "engine/cleaner/pacing.h"

#include <algorithm>

namespace valfs::cleaner {
namespace {

constexpr uint64_t kBegin = 15;  // percent of live bytes
constexpr uint64_t kSlow = 20;
constexpr uint64_t kDear = 23;
// A write at kDear waits for so many times its bytes.
constexpr uint64_t kPrice = 2;
// A volume with less than so many log files is treated as if it had so much: else every commit of a
// few bytes would have to be cleaned up at once. What may be dead then is what two log files take,
// which the bound allows besides its share of the live bytes.
constexpr uint64_t kLeastFiles = 8;
constexpr std::chrono::milliseconds kLongestRest{50};
// Bytes that writers wait for together: an eighth of a percent of what lives, within these.
constexpr uint64_t kLeastBatch = 32 * kKiB;
constexpr uint64_t kLargestBatch = kMiB;

}  // namespace

uint64_t Pacing::share_of_live(uint64_t percent) const {
  const uint64_t file = core_.options.log_file_size;
  const uint64_t least = file > 0 ? 2 * file : kLeastFiles * core_.files.file_size();
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

void Pacing::rest(std::chrono::microseconds took) {
  std::unique_lock lock(mutex_);
  const auto ordered = [this] { return stopped_ || claimed_ > given_; };
  wanted_.wait_for(lock, rest_after(took), ordered);
}

std::chrono::microseconds Pacing::rest_after(std::chrono::microseconds took) const {
  const uint64_t dead = core_.dead_bytes();
  const uint64_t slow = share_of_live(kSlow);
  if (dead >= slow) return std::min<std::chrono::microseconds>(took, kLongestRest);
  return kLongestRest * (slow - dead) / std::max<uint64_t>(slow - share_of_live(kBegin), 1);
}

bool Pacing::is_below_slow(uint64_t bytes) const {
  return core_.dead_bytes() + bytes <= share_of_live(kSlow);
}

bool Pacing::free_of_charge(uint64_t bytes) const {
  return is_below_slow(bytes) ||
         (bytes <= kLeastBatch && paid_.load(std::memory_order_relaxed) > 0);
}

// A little more than is paid for may be taken: so whoever was told that it is free finds it so,
// though others have taken from it meanwhile. The next order makes it up.
bool Pacing::take_paid(uint64_t bytes) {
  const auto wanted = static_cast<int64_t>(bytes);
  const int64_t least = bytes <= kLeastBatch ? -static_cast<int64_t>(kLeastBatch) : wanted - 1;
  int64_t paid = paid_.load(std::memory_order_relaxed);
  while (paid > least) {
    if (paid_.compare_exchange_weak(paid, paid - wanted, std::memory_order_relaxed)) return true;
  }
  return false;
}

uint64_t Pacing::price(uint64_t bytes) const {
  const uint64_t slow = share_of_live(kSlow);
  const uint64_t dear = share_of_live(kDear);
  const uint64_t dead = std::min(core_.dead_bytes() + bytes, dear);
  if (dead <= slow) return 0;
  return kPrice * bytes * (dead - slow) / (dear - slow);
}

// Being woken up costs more than a small write: so writers wait for a batch of them at a time,
// whoever comes first for all that come while it lasts.
void Pacing::admit(uint64_t bytes) {
  if (try_admit(bytes)) return;
  std::unique_lock lock(mutex_);
  const uint64_t releases = releases_;
  while (!stopped_ && releases_ == releases && !try_admit(bytes)) {
    if (ordered_ == 0) order(bytes);
    const uint64_t mine = claimed_;
    changed_.wait(lock, [&] { return given_ >= mine || stopped_ || is_below_slow(bytes); });
    if (given_ < mine || ordered_ == 0) continue;
    paid_ += static_cast<int64_t>(ordered_);
    ordered_ = 0;
    changed_.notify_all();
  }
}

// Expects the mutex to be held.
void Pacing::order(uint64_t bytes) {
  const uint64_t batch = std::clamp(share_of_live(1) / 8, kLeastBatch, kLargestBatch);
  const int64_t overdrawn = -std::min<int64_t>(paid_.load(std::memory_order_relaxed), 0);
  ordered_ = std::max(bytes, batch) + static_cast<uint64_t>(overdrawn);
  claimed_ = std::max(claimed_, given_) + price(ordered_);
  wanted_.notify_all();
}

void Pacing::gave(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  given_ += bytes;
  changed_.notify_all();
}

void Pacing::release() {
  const std::lock_guard lock(mutex_);
  given_ = std::max(given_, claimed_);
  releases_++;
  changed_.notify_all();
}

void Pacing::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  changed_.notify_all();
  wanted_.notify_all();
}

}  // namespace valfs::cleaner
