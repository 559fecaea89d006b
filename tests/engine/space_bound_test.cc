// The bound on garbage (T16): at every moment, under every kind of overwriting and deleting, the
// dead bytes of the log are at most kMostDead of the live ones, and kFloor. It is checked behind
// every kEvery-th change of each thread, and by a thread of its own in between, on a real disk with
// all of the store's threads.
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <mutex>
#include <random>
#include <thread>

#include "engine/storage/kernel_storage.h"
#include "tests/support/crash_check.h"

namespace valfs::test {
namespace {

constexpr double kMostDead = 0.25;  // of the live bytes
constexpr uint64_t kLogFile = 4 * kMiB;
constexpr uint64_t kLeastLive = 2 * kLogFile;  // a volume with less is treated as one with so much
constexpr int kEvery = 64;

constexpr int kThreads = 2;
constexpr uint64_t kValues = 2500;  // of each thread
constexpr size_t kSmallest = 2 * kKiB;
constexpr size_t kLargest = 20 * kKiB;

class Volume {
 public:
  Volume() {
    std::string pattern = "/var/tmp/valfs-space-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
    auto storage = storage::open_kernel_storage({.data_directory = path_, .staging_directory = ""});
    if (!storage) std::abort();
    StoreOptions options;
    options.create = true;
    options.log_file_size = kLogFile;
    options.slots = 4;
    options.slot_size = 256 * kKiB;
    options.cache = 0;
    options.checkpoint_after = 32 * kMiB;
    auto store = Store::open(std::move(*storage), options);
    if (!store) std::abort();
    store_ = std::move(*store);
  }
  ~Volume() {
    store_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Store& store() { return *store_; }

  // Bytes that the log takes on the disk, whatever the store says.
  uint64_t log_bytes_on_disk() const {
    uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path_ + "/wal")) {
      struct stat found {};
      if (::stat(entry.path().c_str(), &found) == 0 && S_ISREG(found.st_mode)) {
        bytes += static_cast<uint64_t>(found.st_blocks) * 512;
      }
    }
    return bytes;
  }

 private:
  std::string path_;
  std::unique_ptr<Store> store_;
};

uint64_t allowed_beside(uint64_t live) {
  return static_cast<uint64_t>(kMostDead * static_cast<double>(std::max(live, kLeastLive)));
}

// Looks at the bound, and remembers the worst.
class Bound {
 public:
  explicit Bound(Store& store) : store_(store), watcher_([this] { watch(); }) {}
  ~Bound() { stop(); }
  Bound(const Bound&) = delete;

  void look() {
    const StoreStats stats = store_.stats();
    const uint64_t allowed = allowed_beside(stats.live_bytes);
    const std::lock_guard lock(mutex_);
    looks_++;
    if (stats.dead_bytes <= allowed) return;
    broken_++;
    if (stats.dead_bytes - allowed <= excess_) return;
    excess_ = stats.dead_bytes - allowed;
    worst_ = stats;
  }

  void check() {
    stop();
    std::cout << looks_ << " looks, " << broken_ << " of them beyond the bound";
    if (broken_ > 0) {
      std::cout << "; worst: " << worst_.dead_bytes << " dead bytes, " << worst_.live_bytes
                << " live";
    }
    std::cout << "\n";
    EXPECT_GT(looks_, with_effort(100) < 100 ? 0u : 20u);
  }
  uint64_t broken() const { return broken_; }
  bool holds() const {
    const StoreStats stats = store_.stats();
    return stats.dead_bytes <= allowed_beside(stats.live_bytes);
  }

 private:
  void watch() {
    std::unique_lock lock(watch_mutex_);
    while (!stopping_) {
      lock.unlock();
      look();
      lock.lock();
      wake_.wait_for(lock, std::chrono::milliseconds(200), [this] { return stopping_; });
    }
  }
  void stop() {
    {
      const std::lock_guard lock(watch_mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    if (watcher_.joinable()) watcher_.join();
  }

  Store& store_;
  std::mutex mutex_;
  uint64_t looks_ = 0;
  uint64_t broken_ = 0;
  uint64_t excess_ = 0;
  StoreStats worst_;
  std::mutex watch_mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread watcher_;
};

// One thread's values: their names are its own.
class Worker {
 public:
  Worker(Store& store, Bound& bound, uint64_t seed, int number)
      : store_(store), bound_(bound), number_(number), random_(seed + uint64_t(number)) {}

  void write(uint64_t value) {
    const size_t length = kSmallest + random_() % (kLargest - kSmallest);
    did(put(store_, name(value), pattern(random_(), length)));
  }
  void remove(uint64_t value) {
    if (look_up(store_, name(value)) != 0) did(test::remove(store_, name(value)));
  }
  std::mt19937_64& random() { return random_; }

 private:
  std::string name(uint64_t value) const {
    return "t" + std::to_string(number_) + "-" + std::to_string(value);
  }
  void did(const Status& status) {
    ASSERT_TRUE(status) << status.error().what;
    if (++changes_ % kEvery == 0) bound_.look();
  }

  Store& store_;
  Bound& bound_;
  const int number_;
  std::mt19937_64 random_;
  uint64_t changes_ = 0;
};

// Deletes never wait, so that many of them may exceed the bound until the cleaner has caught up.
enum class Deletes { kFew, kMany };

template <class Work>
void run_threads(Deletes deletes, Work work) {
  const uint64_t seed = from_environment("VALFS_SEED", 1);
  Volume volume;
  Bound bound(volume.store());
  std::vector<std::thread> threads;
  for (int number = 0; number < kThreads; number++) {
    threads.emplace_back([&, number] {
      Worker worker(volume.store(), bound, seed, number);
      work(worker);
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(volume.store().sync());
  bound.check();
  if (deletes == Deletes::kFew) {
    EXPECT_EQ(bound.broken(), 0u);
  } else {
    while (!bound.holds()) std::this_thread::yield();  // the test's timeout is the limit
  }
  // And the numbers are true, but for what is prepared behind the end of each stream's file.
  const StoreStats stats = volume.store().stats();
  const uint64_t taken = volume.log_bytes_on_disk();
  EXPECT_LE(taken, stats.live_bytes + stats.dead_bytes + stats.spare_bytes +
                       (2 + log::kStreams) * kLogFile);
}

uint64_t rounds(uint64_t count) {
  return nightly() ? count * 50 : with_effort(count);
}

void fill(Worker& worker) {
  for (uint64_t value = 0; value < kValues; value++) worker.write(value);
}

TEST(SpaceBound, UniformOverwrite) {
  run_threads(Deletes::kFew, [](Worker& worker) {
    fill(worker);
    for (uint64_t i = 0; i < rounds(2 * kValues); i++) worker.write(worker.random()() % kValues);
  });
}

TEST(SpaceBound, ZipfOverwrite) {
  run_threads(Deletes::kFew, [](Worker& worker) {
    fill(worker);
    std::vector<double> weights;
    for (uint64_t i = 1; i <= kValues; i++) {
      weights.push_back(1 / std::pow(static_cast<double>(i), 0.99));
    }
    std::discrete_distribution<uint64_t> choose(weights.begin(), weights.end());
    for (uint64_t i = 0; i < rounds(2 * kValues); i++) worker.write(choose(worker.random()));
  });
}

// Grows, loses nine values in ten, grows again.
TEST(SpaceBound, Sawtooth) {
  run_threads(Deletes::kMany, [](Worker& worker) {
    for (uint64_t round = 0; round < rounds(3); round++) {
      fill(worker);
      for (uint64_t value = 0; value < kValues; value++) {
        if (worker.random()() % 10 != 0) worker.remove(value);
      }
    }
  });
}

TEST(SpaceBound, MassDelete) {
  run_threads(Deletes::kMany, [](Worker& worker) {
    fill(worker);
    std::vector<uint64_t> order(kValues);
    for (uint64_t i = 0; i < kValues; i++) order[i] = i;
    std::shuffle(order.begin(), order.end(), worker.random());
    for (const uint64_t value : order) worker.remove(value);
  });
}

}  // namespace
}  // namespace valfs::test
