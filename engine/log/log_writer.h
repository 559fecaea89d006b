// The log writer: takes records into the open slot, sends groups, acknowledges them in order.
//
//   append ─► open slot ─ seal ─► in flight (write_durably) ─► durable, in order ─► slot free
//
// Thread-safe, but appends come under the Store's exclusive lock, which gives the order of records.
// Completion callbacks run on a thread of the storage, with no lock of the log held.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <optional>

#include "engine/index/index.h"
#include "engine/log/log_files.h"
#include "engine/log/staging.h"

namespace valfs::log {

class LogWriter {
 public:
  using Clock = std::function<std::chrono::steady_clock::time_point()>;
  using Done = std::function<void(const Status&)>;

  // What an append is for. Ordinary writes leave two log files in reserve: one that deletes may use
  // on a full disk, one that only the cleaner may, so that it can always copy before it frees
  // (P10).
  enum class Purpose { kOrdinary, kReserve, kCleaner };

  struct Start {
    GroupSequence next_group = 1;
    RecordSequence next_record = 1;
    ObjectId next_object = index::kFirstObject;
    uint64_t previous_end = 0;  // packed Position behind the last group
    uint32_t previous_crc = 0;
  };

  LogWriter(storage::Storage& storage, LogFiles& files, Staging& staging, const Start& start,
            Clock clock);
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  // --- under the Store's exclusive lock ---

  // True if records of that many bytes can be appended right now; their room is then reserved until
  // append() or release_room(), and the open slot is not sealed meanwhile. May seal and rotate.
  bool reserve_room(uint64_t bytes, size_t records, Purpose purpose);
  void release_room();
  // Appends records as one batch: after kill -9 and after power loss all or none of them are there.
  // Gives each its sequence, if it has none. Room must have been reserved.
  std::vector<index::Placed> append(std::span<Record> records);
  // Seals at once, however much is in flight; returns the last sealed group.
  GroupSequence seal();
  // Seals and leaves the current file, so that the cleaner can have it.
  void rotate();
  // Sends an empty group, whose watermark vouches for the groups before it.
  void attest();

  // --- any thread ---

  // Waits until reserve_room() may be true. ENOSPC: there is no room for another log file.
  Status wait_for_room(uint64_t bytes, size_t records, Purpose purpose);

  // Calls `done` when everything appended so far is durable, or has failed to become so.
  void sync(Done done);
  Status sync();
  // Seals and sends what there is, without waiting.
  void push();
  // Copies bytes of a record that is still in a slot; false if it is not.
  bool read(Position record, uint64_t lead, std::span<std::byte> into);

  ObjectId new_object() { return next_object_.fetch_add(1, std::memory_order_relaxed); }
  ObjectId next_object() const { return next_object_.load(std::memory_order_relaxed); }
  RecordSequence next_record() const;
  GroupSequence appended() const;  // the last group that holds something
  GroupSequence durable() const;
  // When the oldest record that is not durable was appended; nothing if all are.
  std::optional<std::chrono::steady_clock::time_point> undurable_since() const;
  bool attested() const;  // nothing was sent since the last empty group
  std::optional<Error> failure() const;
  uint64_t groups_sent() const;
  // Bytes that the current file still takes.
  uint64_t room_left() const;
  LogFileRef active_file() const;

 private:
  enum class State { kFree, kOpen, kSealed, kInFlight, kWritten };
  struct Slot {
    State state = State::kFree;
    LogFileRef file;
    GroupPlace place;
    uint64_t end = 0;       // bytes used, header included
    uint64_t capacity = 0;  // bytes the group may take
    uint64_t length = 0;    // sealed: bytes on the disk
    ObjectId highest_object = 0;
    std::chrono::steady_clock::time_point opened;
    GroupSummary summary;
  };
  struct Waiter {
    GroupSequence group;
    Done done;
  };
  using Lock = std::unique_lock<std::mutex>;

  bool open_slot_fits(uint64_t bytes, size_t records) const;
  bool room(uint64_t bytes, size_t records, Purpose purpose);
  bool file_fits(uint64_t bytes, size_t records) const;
  static size_t spares_kept(Purpose purpose);
  size_t spares_needed(uint64_t bytes, size_t records, Purpose purpose) const;
  std::optional<uint32_t> free_slot() const;
  bool open_slot(uint64_t bytes, size_t records, Purpose purpose);
  void seal_open();
  void cancel_open();
  void send(uint32_t slot);
  void leave_file();
  void completed(uint32_t slot, Status status);
  std::vector<std::pair<Done, Status>> advance();
  void request_seal();
  void end_reservation();
  bool open_has_records() const;

  storage::Storage& storage_;
  LogFiles& files_;
  Staging& staging_;
  const Clock clock_;
  std::atomic<ObjectId> next_object_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;
  std::optional<uint32_t> open_;
  std::deque<uint32_t> in_order_;  // sealed slots, oldest first
  size_t in_flight_ = 0;
  bool seal_wanted_ = false;
  bool reserved_ = false;  // somebody is about to append to the open slot
  bool attested_ = true;
  LogFileRef file_;           // where the next group goes
  uint64_t next_offset_ = 0;  // in it
  GroupSequence next_group_;
  RecordSequence next_record_;
  uint64_t previous_end_;
  uint32_t previous_crc_;
  GroupSequence durable_;
  GroupSequence last_sealed_;
  uint64_t groups_sent_ = 0;
  std::optional<Error> failure_;
  std::deque<Waiter> waiters_;
};

}  // namespace valfs::log
