// The engine against RocksDB, in one process and one run, on one directory, taking turns.
//
//   bench_engine DIRECTORY [--rounds N] [--keys N] [--csv FILE] [--only valfs|rocksdb]
//                [--part throughput|opening]
//
// Prints medians of all rounds, their ratio and its target; the CSV has every single result. --keys
// is how many keys the stores hold whose opening is timed; nothing but that depends on it.
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "tests/bench/contender.h"

namespace valfs::bench {

void give_up(const std::string& what) {
  std::fprintf(stderr, "bench_engine: %s\n", what.c_str());
  std::exit(1);
}

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kCache = 64 << 20;
constexpr uint64_t kDataSet = 4 * kCache;
constexpr std::chrono::milliseconds kSyncTime{1000};  // of each measurement of durable puts
constexpr std::chrono::milliseconds kGetTime{1000};
constexpr uint64_t kSeed = 20240117;
constexpr double kKeyHeap = 32;  // what the heap takes for a key of 16 bytes

struct Settings {
  std::string directory;
  int rounds = 3;
  uint64_t keys = 1'000'000;
  std::string csv;
  std::string only;
  std::string part;  // empty: both
};

struct Side {
  const char* name;
  Open open;
};
constexpr Side kSides[] = {{"valfs", open_valfs}, {"rocksdb", open_rocksdb}};

// Results by measure and side.
class Results {
 public:
  void add(int round, const std::string& measure, const char* side, double value) {
    if (values_.find(measure) == values_.end()) order_.push_back(measure);
    values_[measure][side].push_back(value);
    csv_ += std::to_string(round) + "," + measure + "," + side + "," + std::to_string(value) + "\n";
    std::fprintf(stderr, "  %-34s %-8s %14.1f\n", measure.c_str(), side, value);
  }
  void print() const;
  void write_csv(const std::string& path) const {
    std::ofstream(path) << "round,measure,store,value\n" << csv_;
  }

 private:
  double median(const std::string& measure, const char* side) const {
    const auto& sides = values_.at(measure);
    const auto found = sides.find(side);
    if (found == sides.end()) return 0;
    std::vector<double> values = found->second;
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
  }

  std::vector<std::string> order_;
  std::map<std::string, std::map<std::string, std::vector<double>>> values_;
  std::string csv_;
};

// What is asked of a measure: of the ratio, or of valfs' own figure.
struct Target {
  const char* measure;  // begins so
  double ratio;         // at least; 0: none
  double least;         // 0: none
  double most;          // 0: none
};
constexpr Target kTargets[] = {
    {"put+sync/s, 1 thread", 1.5, 0, 0},
    {"put+sync/s", 1.2, 0, 0},
    {"put/s", 1.5, 0, 0},
    {"get/s", 1.5, 0, 0},
    {"open from checkpoint, keys/s and core", 0, 2e6, 0},
    {"open without checkpoint, MB/s", 0, 1000, 0},
    {"heap bytes a key", 0, 0, 128 + kKeyHeap},
};

void Results::print() const {
  std::printf("%-36s %14s %14s %8s  %s\n", "median", "valfs", "rocksdb", "ratio", "target");
  for (const std::string& measure : order_) {
    const double ours = median(measure, "valfs");
    const double theirs = median(measure, "rocksdb");
    const double ratio = theirs > 0 ? ours / theirs : 0;
    std::string verdict;
    for (const Target& target : kTargets) {
      if (measure.rfind(target.measure, 0) != 0) continue;
      char text[64];
      const bool met = ratio >= target.ratio && ours >= target.least &&
                       (target.most == 0 || ours <= target.most);
      if (target.ratio > 0) std::snprintf(text, sizeof text, ">= %.1fx ", target.ratio);
      if (target.least > 0) std::snprintf(text, sizeof text, ">= %.0f ", target.least);
      if (target.most > 0) std::snprintf(text, sizeof text, "<= %.0f ", target.most);
      verdict = std::string(text) + (met ? "met" : "MISSED");
      break;
    }
    std::printf("%-36s %14.1f %14.1f %8.2f  %s\n", measure.c_str(), ours, theirs, ratio,
                verdict.c_str());
  }
}

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Of all threads of this process.
double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t size = 0;
  uint64_t resident = 0;
  file >> size >> resident;
  return resident * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

uint64_t heap_bytes() {
  const auto info = ::mallinfo2();
  return info.uordblks + info.hblkhd;
}

uint64_t disk_bytes(const std::string& directory, const std::string& only = "") {
  uint64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const std::string path = entry.path().string();
    if (!entry.is_regular_file() || path.find(only) == std::string::npos) continue;
    bytes += fs::file_size(entry.path());
  }
  return bytes;
}

// Of what lies in a directory; what is dirty is written first.
void drop_page_cache(const std::string& directory) {
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    const int file = entry.is_regular_file() ? ::open(entry.path().c_str(), O_RDONLY) : -1;
    if (file < 0) continue;
    ::fdatasync(file);
    ::posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    ::close(file);
  }
}

// Keys are well mixed: no store may live on their order.
std::string key_of(uint64_t number) {
  uint64_t mixed = number * 0x9e3779b97f4a7c15;
  mixed ^= mixed >> 29;
  char key[24];
  std::snprintf(key, sizeof key, "k%015lx", mixed & 0xfffffffffffffff);
  return key;
}

// Slices of noise: values that differ, at no cost.
class Values {
 public:
  explicit Values(size_t size) : size_(size), noise_(size + kStep * 1024) {
    std::mt19937_64 random(kSeed);
    for (std::byte& byte : noise_) byte = static_cast<std::byte>(random());
  }
  std::span<const std::byte> of(uint64_t number) const {
    return std::span(noise_).subspan(number % 1024 * kStep, size_);
  }

 private:
  static constexpr size_t kStep = 61;
  size_t size_;
  std::vector<std::byte> noise_;
};

// Calls a second of `work(thread, count)` from many threads for `time`.
double rate(int threads, std::chrono::milliseconds time,
            const std::function<void(int, uint64_t)>& work) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> total{0};
  std::vector<std::thread> running;
  const auto start = Clock::now();
  for (int thread = 0; thread < threads; thread++) {
    running.emplace_back([&, thread] {
      uint64_t count = 0;
      while (!stop) work(thread, count++);
      total += count;
    });
  }
  std::this_thread::sleep_for(time);
  stop = true;
  for (std::thread& thread : running) thread.join();
  return static_cast<double>(total) / seconds_since(start);
}

double rate_of(uint64_t count, const std::function<void(uint64_t)>& work) {
  const auto start = Clock::now();
  for (uint64_t i = 0; i < count; i++) work(i);
  return static_cast<double>(count) / seconds_since(start);
}

class Bench {
 public:
  explicit Bench(const Settings& settings) : settings_(settings) {}

  void run() {
    for (int round = 1; round <= settings_.rounds; round++) {
      for (const size_t size : {size_t{1} << 10, size_t{100} << 10}) {
        if (settings_.part == "opening") continue;
        for_each_side(round, [&](const Side& side, const std::string& directory) {
          throughput(round, side, directory, size);
        });
      }
      if (settings_.part == "throughput") continue;
      for_each_side(round, [&](const Side& side, const std::string& directory) {
        opening(round, side, directory);
      });
    }
    results_.print();
    if (!settings_.csv.empty()) results_.write_csv(settings_.csv);
  }

 private:
  // Who comes first changes from round to round.
  void for_each_side(int round,
                     const std::function<void(const Side&, const std::string&)>& measure) {
    for (int i = 0; i < 2; i++) {
      const Side& side = kSides[(i + round) % 2];
      if (!settings_.only.empty() && settings_.only != side.name) continue;
      const std::string directory = settings_.directory + "/bench-" + side.name;
      fs::remove_all(directory);
      fs::create_directories(directory);
      ::sync();
      measure(side, directory);
      fs::remove_all(directory);
    }
  }

  void throughput(int round, const Side& side, const std::string& directory, size_t size) {
    const std::string what = size < 10'000 ? ", 1 KiB" : ", 100 KiB";
    const auto note = [&](const std::string& measure, double value) {
      results_.add(round, measure + what, side.name, value);
    };
    const Values values(size);
    const uint64_t count = kDataSet / size;
    ::malloc_trim(0);
    const uint64_t before = resident_bytes();
    auto store = side.open({directory, kCache});
    note("put/s", rate_of(count, [&](uint64_t i) { store->put(key_of(i), values.of(i)); }));
    store->sync();
    std::mt19937_64 random(kSeed + static_cast<uint64_t>(round));
    note("put/s, overwriting", rate_of(count / 4, [&](uint64_t i) {
           store->put(key_of(random() % count), values.of(i + 7));
         }));
    store->sync();
    store->compact();
    note("bytes on disk / bytes of values",
         static_cast<double>(disk_bytes(directory) - disk_bytes(directory, "/staging")) /
             static_cast<double>(count * size));
    const auto read = [&](std::mt19937_64& choice) {
      if (store->get(key_of(choice() % count)) != size) give_up("a value has another size");
    };
    // valfs writes past the page cache, RocksDB through it: both begin with nothing there, and then
    // again with everything.
    drop_page_cache(directory);
    note("get/s, cold", rate(1, kGetTime, [&](int, uint64_t) { read(random); }));
    for (uint64_t i = 0; i < count; i++) store->get(key_of(i));
    note("get/s, warm", rate(1, kGetTime, [&](int, uint64_t) { read(random); }));
    ::malloc_trim(0);
    note("resident MiB", static_cast<double>(resident_bytes() - before) / (1 << 20));
    ::sync();  // what compaction has left for the file system to write is nobody's commit
    for (uint64_t i = 0; i < 100; i++) store->put_durably(key_of(i), values.of(i));
    for (const int threads : {1, 8, 16}) {
      const std::string label =
          "put+sync/s, " + std::to_string(threads) + (threads == 1 ? " thread" : " threads");
      note(label, rate(threads, kSyncTime, [&](int thread, uint64_t i) {
             const uint64_t number = static_cast<uint64_t>(threads * 100 + thread) << 40 | i;
             store->put_durably(key_of(count + number), values.of(i));
           }));
    }
    note("remove/s", rate_of(count, [&](uint64_t i) { store->remove(key_of(i)); }));
  }

  void opening(int round, const Side& side, const std::string& directory) {
    const auto note = [&](const std::string& measure, double value) {
      results_.add(round, measure, side.name, value);
    };
    const Values values(100);
    const auto keys = static_cast<double>(settings_.keys);
    {
      auto store = side.open({directory, kCache});
      for (uint64_t i = 0; i < settings_.keys; i++) store->put(key_of(i), values.of(i));
    }
    ::malloc_trim(0);
    const uint64_t heap = heap_bytes();
    auto start = Clock::now();
    const double cpu = cpu_seconds();
    auto store = side.open({directory, 0});
    note("open from checkpoint, keys/s and core", keys / (cpu_seconds() - cpu));
    note("open from checkpoint, ms", seconds_since(start) * 1e3);
    note("open from checkpoint, keys/s", keys / seconds_since(start));
    note("heap bytes a key",
         (static_cast<double>(heap_bytes()) - static_cast<double>(heap)) / keys);
    if (store->get(key_of(settings_.keys / 2)) != 100) give_up("a key is missing");
    store.reset();
    if (side.open != open_valfs) return;
    without_checkpoint(round, side, directory, settings_.keys, ", 100 B");
    fs::remove_all(directory);
    fs::create_directories(directory);
    const Values larger(1 << 10);
    const uint64_t count = kDataSet / (1 << 10);
    store = side.open({directory, kCache});
    for (uint64_t i = 0; i < count; i++) store->put(key_of(i), larger.of(i));
    store.reset();
    without_checkpoint(round, side, directory, count, ", 1 KiB");
  }

  // What a mount costs when there is nothing but the log: by footers, and then by a full scan.
  void without_checkpoint(int round, const Side& side, const std::string& directory, uint64_t keys,
                          const std::string& what) {
    for (const auto& entry : fs::directory_iterator(directory + "/checkpoint")) {
      fs::remove(entry.path());
    }
    const auto log = static_cast<double>(disk_bytes(directory, "/wal/"));
    drop_page_cache(directory);
    const auto start = Clock::now();
    auto store = side.open({directory, 0});
    const double took = seconds_since(start);
    results_.add(round, "open without checkpoint, MB/s of log" + what, side.name, log / 1e6 / took);
    results_.add(round, "open without checkpoint, keys/s" + what, side.name,
                 static_cast<double>(keys) / took);
    if (store->get(key_of(keys / 2)) == 0) give_up("a key is missing");
  }

  const Settings settings_;
  Results results_;
};

Settings parse(int argc, char** argv) {
  const option options[] = {
      {"rounds", required_argument, nullptr, 'r'}, {"keys", required_argument, nullptr, 'k'},
      {"csv", required_argument, nullptr, 'c'},    {"only", required_argument, nullptr, 'o'},
      {"part", required_argument, nullptr, 'p'},   {nullptr, 0, nullptr, 0}};
  Settings settings;
  for (int found; (found = ::getopt_long(argc, argv, "", options, nullptr)) != -1;) {
    if (found == 'r') settings.rounds = std::atoi(optarg);
    if (found == 'k') settings.keys = std::strtoull(optarg, nullptr, 10);
    if (found == 'c') settings.csv = optarg;
    if (found == 'o') settings.only = optarg;
    if (found == 'p') settings.part = optarg;
    if (found == '?') give_up("unknown option");
  }
  if (optind + 1 != argc || settings.rounds < 1 || settings.keys < 1) {
    give_up(
        "usage: DIRECTORY [--rounds N] [--keys N] [--csv FILE] [--only valfs|rocksdb]"
        " [--part throughput|opening]");
  }
  settings.directory = argv[optind];
  return settings;
}

}  // namespace
}  // namespace valfs::bench

int main(int argc, char** argv) {
  valfs::bench::Bench(valfs::bench::parse(argc, argv)).run();
}
