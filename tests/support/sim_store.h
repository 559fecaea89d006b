// Stores on a simulated disk, small enough that everything happens often: log files fill, slots
// seal, values move to bin/ and back. And the changes that fs/ makes, as it makes them.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/storage/sim_disk.h"
#include "engine/store.h"

namespace valfs::test {

using Bytes = std::vector<std::byte>;

// What == does, by the word: most of the time of these tests would go into it.
bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b);

// A clock that stands still until it is moved.
class FakeClock {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  TimePoint now() const { return *now_; }
  void advance(std::chrono::milliseconds by) { *now_ += by; }
  // For StoreOptions::clock; good for longer than this object.
  std::function<TimePoint()> function() const {
    return [now = now_] { return *now; };
  }

 private:
  std::shared_ptr<TimePoint> now_ = std::make_shared<TimePoint>(std::chrono::hours(1));
};

// No threads, 4 slots of 64 KiB, log files of 256 KiB, blobs above 32 KiB.
StoreOptions small_options(const FakeClock& clock = {});

// Opens a store on `disk`, which must outlive it.
Result<std::unique_ptr<Store>> open_store(storage::SimDisk& disk, const StoreOptions& options);
// The same, where failure is the end of the test.
std::unique_ptr<Store> must_open(storage::SimDisk& disk, const StoreOptions& options);

// `length` bytes that differ from those of other seeds. Of every so many seeds one gives bytes that
// can be compressed to a third, the others give noise.
inline constexpr uint64_t kCompressibleSeeds = 3;
Bytes pattern(uint64_t seed, size_t length);

// --- what fs/ does ---

// The time that all changes get.
inline constexpr Time kNow{1'000'000, 42};

log::ObjectId look_up(const Store& store, std::string_view path);  // 0: not there
index::Attributes attributes_of(const Store& store, log::ObjectId inode);

Status make_directory(Store& store, const std::string& path);
Status create(Store& store, const std::string& path);
Status write(Store& store, const std::string& path, uint64_t offset,
             std::span<const std::byte> bytes);
Status append(Store& store, const std::string& path, std::span<const std::byte> bytes);
Status truncate(Store& store, const std::string& path, uint64_t size);
Status punch(Store& store, const std::string& path, uint64_t offset, uint64_t length);
Status change_mode(Store& store, const std::string& path, uint32_t permissions);
Status remove(Store& store, const std::string& path);  // file or empty directory
Status rename(Store& store, const std::string& from, const std::string& to);  // over what is there
Status link(Store& store, const std::string& path, const std::string& other);
Status sync(Store& store, const std::string& path);
// create and write; or, if it is there, truncate and write.
Status put(Store& store, const std::string& path, std::span<const std::byte> bytes);
// The whole value.
Result<Bytes> get(Store& store, const std::string& path);

// Checks what must always hold in an index: names and inodes agree, live bytes per log file are
// what a recount gives, and no log file has more live than used. "" if all is well.
std::string check_index(const Store& store);

}  // namespace valfs::test
