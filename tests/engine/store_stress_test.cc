// Threads that write, read, remove and sync while upkeep and garbage collection run, on the real
// file system. Meant for the thread sanitizer, too.
#include <gtest/gtest.h>

#include <stdlib.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>

#include "engine/key_value.h"
#include "engine/storage/kernel_storage.h"
#include "tests/support/sim_store.h"

namespace valfs::test {
namespace {

// A fresh data directory on a real disk.
class DataDirectory {
 public:
  DataDirectory() {
    std::string pattern = "/var/tmp/valfs-stress-XXXXXX";
    if (::mkdtemp(pattern.data()) == nullptr) std::abort();
    path_ = pattern;
  }
  ~DataDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::unique_ptr<storage::Storage> open(bool ring) const {
    auto storage = storage::open_kernel_storage(
        {.data_directory = path_, .staging_directory = "", .use_ring = ring});
    if (!storage) std::abort();
    return std::move(*storage);
  }

 private:
  std::string path_;
};

StoreOptions threaded_options() {
  StoreOptions options;
  options.create = true;
  options.log_file_size = 2 * kMiB;
  options.slots = 4;
  options.slot_size = 256 * kKiB;
  options.cache = kMiB;
  options.blob_threshold = 128 * kKiB;
  options.fold_extents = 8;
  options.checkpoint_after = 4 * kMiB;
  options.blob_flush = std::chrono::milliseconds(200);
  options.compression = Compression::kLz4;
  return options;
}

// One thread has files of its own, and knows what is in them.
class Worker {
 public:
  Worker(Store& store, int number) : store_(store), number_(number), random_(number) {}

  void run(const std::atomic<bool>& stop) {
    while (!stop && !::testing::Test::HasFailure()) step();
  }
  void check_all(Store& store) {
    for (const auto& [path, bytes] : files_) check(store, path, bytes);
  }

 private:
  static void check(Store& store, const std::string& path, const Bytes& expected) {
    const auto bytes = get(store, path);
    ASSERT_TRUE(bytes) << path << ": " << bytes.error().what;
    ASSERT_TRUE(*bytes == expected) << path << " has other contents";
  }
  void good(const Status& status) { ASSERT_TRUE(status) << status.error().what; }

  void step() {
    const std::string path = "t" + std::to_string(number_) + "-" + std::to_string(random_() % 20);
    const auto found = files_.find(path);
    switch (random_() % 8) {
      case 0:
      case 1:
      case 2: {
        const Bytes bytes = pattern(random_(), random_() % (random_() % 12 == 0 ? 300'000 : 6000));
        good(put(store_, path, bytes));
        files_[path] = bytes;
        return;
      }
      case 3: {
        if (found == files_.end()) return;
        Bytes& bytes = found->second;
        const Bytes piece = pattern(random_(), 1 + random_() % 3000);
        const size_t offset = random_() % (bytes.size() + 1);
        good(write(store_, path, offset, piece));
        bytes.resize(std::max(bytes.size(), offset + piece.size()));
        std::copy(piece.begin(), piece.end(), bytes.begin() + static_cast<ptrdiff_t>(offset));
        return;
      }
      case 4:
        if (found == files_.end()) return;
        good(remove(store_, path));
        files_.erase(found);
        return;
      case 5:
        return good(random_() % 4 == 0 ? store_.sync() : Status{});
      case 6:
        if (found != files_.end()) good(sync(store_, path));
        return;
      default:
        if (found != files_.end()) check(store_, path, found->second);
    }
  }

  Store& store_;
  const int number_;
  std::mt19937_64 random_;
  std::map<std::string, Bytes> files_;
};

void run_stress(bool ring) {
  const DataDirectory data;
  auto opened = Store::open(data.open(ring), threaded_options());
  ASSERT_TRUE(opened) << opened.error().what;
  std::unique_ptr<Store> store = std::move(*opened);
  std::vector<std::unique_ptr<Worker>> workers;
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++) workers.push_back(std::make_unique<Worker>(*store, i));
  for (auto& worker : workers) {
    threads.emplace_back([&stop, each = worker.get()] { each->run(stop); });
  }
  threads.emplace_back([&] {
    while (!stop) {
      const auto collected = store->gc();
      EXPECT_TRUE(collected) << collected.error().what;
      (void)store->gc_progress();
      (void)store->stats();
      EXPECT_TRUE(store->checkpoint());
      store->drop_caches();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  for (auto& worker : workers) worker->check_all(*store);
  EXPECT_EQ(check_index(*store), "");
  const auto stats = store->stats();
  std::cout << stats.io << ": " << stats.groups_sent << " groups, " << stats.cleaned_files
            << " log files cleaned, " << stats.copied_bytes << " bytes copied\n";
  const auto closed = store->close();
  ASSERT_TRUE(closed) << closed.error().what;
  store.reset();
  opened = Store::open(data.open(ring), threaded_options());
  ASSERT_TRUE(opened) << opened.error().what;
  store = std::move(*opened);
  for (auto& worker : workers) worker->check_all(*store);
  EXPECT_EQ(check_index(*store), "");
  EXPECT_EQ(store->stats().damaged_groups, 0u);
}

TEST(StoreStress, ThreadsOnTheRing) {
  run_stress(true);
}
TEST(StoreStress, ThreadsWithoutTheRing) {
  run_stress(false);
}

// A read that met a value on its way to bin/ returned zeros: it had the size of one moment and the
// extents of another.
TEST(StoreStress, P0_ReadsWhileAValueMovesToBin) {
  DataDirectory data;
  auto opened = Store::open(data.open(true), threaded_options());
  ASSERT_TRUE(opened) << opened.error().what;
  Store& store = **opened;
  const uint64_t threshold = threaded_options().blob_threshold;
  for (int round = 0; round < 30; round++) {
    const std::string name = "f" + std::to_string(round);
    ASSERT_TRUE(create(store, name));
    const log::ObjectId id = look_up(store, name);
    const Bytes piece(threshold / 4, std::byte{0xaa});
    for (uint64_t i = 0; i < 4; i++) ASSERT_TRUE(store.write(id, i * piece.size(), piece, kNow));
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> reads{0};
    std::atomic<uint64_t> wrong{0};
    std::thread reader([&] {
      Bytes into(threshold / 2);
      while (!stop) {
        const auto got = store.read(id, threshold / 4, into);
        for (size_t i = 0; got && i < *got; i++) wrong += into[i] != std::byte{0xaa};
        reads++;
      }
    });
    while (reads == 0) std::this_thread::yield();
    ASSERT_TRUE(store.write(id, threshold, Bytes(4096, std::byte{0xaa}), kNow));
    stop = true;
    reader.join();
    EXPECT_EQ(wrong, 0u);
    ASSERT_TRUE(remove(store, name));
  }
  EXPECT_TRUE(store.close());
}

// A value that says what it is: whoever reads a mixture of two finds out.
Bytes self_describing(uint64_t seed, size_t size) {
  Bytes bytes = pattern(seed, 16 + size);
  std::memcpy(bytes.data(), &seed, sizeof seed);
  std::memcpy(bytes.data() + sizeof seed, &size, sizeof size);
  return bytes;
}
bool is_whole(const Bytes& bytes) {
  uint64_t seed = 0;
  size_t size = 0;
  if (bytes.size() < 16) return false;
  std::memcpy(&seed, bytes.data(), sizeof seed);
  std::memcpy(&size, bytes.data() + sizeof seed, sizeof size);
  return bytes.size() == 16 + size && bytes == self_describing(seed, size);
}

// Few keys, and all threads put, read, stream and remove all of them.
TEST(StoreStress, P0_P5_KeyValueReadersSeeWholeValues) {
  const DataDirectory data;
  auto opened = Store::open(data.open(true), threaded_options());
  ASSERT_TRUE(opened) << opened.error().what;
  KeyValue values(**opened);
  std::atomic<uint64_t> wrong{0};
  std::atomic<uint64_t> read{0};
  const auto work = [&](uint64_t number) {
    std::mt19937_64 random(number);
    for (int i = 0; i < 800; i++) {
      const std::string key = "k" + std::to_string(random() % 3);
      const auto check = [&](const Status& status, const Bytes& bytes) {
        if (status ? !is_whole(bytes) : status.error().code != ENOENT) wrong++;
        if (status) read++;
      };
      const uint64_t choice = random() % 16;
      if (choice < 6) {
        const uint64_t most = random() % 16 == 0 ? 300'000 : choice < 2 ? 200 : 40'000;
        if (!values.put(key, self_describing(random(), random() % most))) wrong++;
      } else if (choice == 6) {
        const auto removed = values.remove(key);
        if (!removed && removed.error().code != ENOENT) wrong++;
      } else if (choice < 10) {
        Bytes all;
        check(values.get_stream(
                  key,
                  [&](KeyValue::Bytes piece) -> Status {
                    all.insert(all.end(), piece.begin(), piece.end());
                    return {};
                  },
                  5000),
              all);
      } else {
        const auto got = values.get(key);
        check(got ? Status{} : Status(tl::unexpected(got.error())), got ? *got : Bytes{});
      }
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 4; i++) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_GT(read, 100u);
  EXPECT_EQ(check_index(**opened), "");
  EXPECT_LE((*opened)->stats().inodes, 1u + 2 * 3);  // the root, values, and sums of large ones
  EXPECT_TRUE((*opened)->close());
}

}  // namespace
}  // namespace valfs::test
