// What a store can be told when it is opened.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

namespace valfs {

inline constexpr uint64_t kKiB = 1024;
inline constexpr uint64_t kMiB = 1024 * kKiB;

// How the cleaner stores what it copies. The numbers are on the disk (log/compression.h).
enum class Compression : uint8_t { kNone = 0, kLz4 = 1, kZstd = 2 };

struct StoreOptions {
  // Largest size of a log file, bytes; small volumes use smaller ones (never under 16 MiB, unless
  // the disk itself is small).
  uint64_t max_log_file = 512 * kMiB;
  // A fixed size of log files instead, bytes; 0: adapt. For tests.
  uint64_t log_file_size = 0;
  // Memory for cached values, bytes; 0: no cache.
  uint64_t cache = 64 * kMiB;
  // Staging slots: where groups gather. A slot holds the largest value a record may have.
  uint32_t slots = 8;
  // Most records of a group: with the slots, what may wait to be written.
  uint32_t group_records = 65536;
  uint64_t slot_size = 4 * kMiB + 256 * kKiB;
  // Without any sync, power loss costs at most so much time (P4).
  std::chrono::milliseconds commit{100};
  // So long after they were written the bytes of large values are flushed: early enough that they
  // are durable after 5 s even if other upkeep is under way (P4).
  std::chrono::milliseconds blob_flush{3000};
  // A checkpoint is written after so many bytes of log, or after so much time without changes.
  uint64_t checkpoint_after = 64 * kMiB;
  std::chrono::seconds checkpoint_idle{30};
  // Most bytes the volume may take on the disk; 0: what the disk has.
  uint64_t capacity = 0;
  // Bytes that the cleaner copies at a time; 0: adapt. For tests.
  uint64_t clean_slice = 0;
  // What the cleaner does with values of 1 KiB and more that it copies; it keeps what then takes
  // less than 90 %. What is compressed can be read whatever this says.
  Compression compression = Compression::kNone;
  // Values with more bytes than this (holes not counted) go to bin/.
  uint64_t blob_threshold = 4 * kMiB;
  // Overlaying extents are folded into one when there are more than this and they hold as many
  // bytes as the value.
  uint32_t fold_extents = 64;
  // Threads for commits and upkeep. Without them the caller has to call Store::tick().
  bool background = true;
  // Make a volume if the data directory is empty.
  bool create = false;
  // Open although a log file is missing, and note in the manifest that it is gone. What is known of
  // names and attributes stays; bytes that it held answer EIO. For repairs.
  bool accept_missing_log_files = false;
  // Who owns the root directory of a new volume.
  uint32_t root_uid = 0;
  uint32_t root_gid = 0;
  uint64_t cache_seed = 1;
  // The time for timers; the default is std::chrono::steady_clock.
  std::function<std::chrono::steady_clock::time_point()> clock;
};

}  // namespace valfs
