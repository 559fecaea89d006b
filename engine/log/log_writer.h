// The log writer: takes records into the open slot, sends groups, acknowledges them in order.
//
//   append ─► open slot ─ seal ─► in flight (write_durably) ─► durable, in order ─► slot free
//
// Groups have one sequence, whichever log file they go to: each stream has a file of its own.
//
// When a group cannot be written, nothing is lost yet: it is still in its slot. All groups that are
// not durable then move to a fresh log file, and are acknowledged once they are durable there. A
// second failure is for good: the log takes no more changes (P8).
//
// Thread-safe, but appends come under the Store's exclusive lock, which gives the order of records.
// Completion callbacks run on a thread of the storage, with no lock of the log held.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <optional>

#include "engine/index/index.h"
#include "engine/log/log_files.h"
#include "engine/log/staging.h"
#include "engine/log/superblock.h"

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
            Clock clock, uint32_t max_records);
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  // --- under the Store's exclusive lock ---

  // True if records of that many bytes can be appended right now; their room is then reserved until
  // append() or release_room(), and the open slot is not sealed meanwhile. May seal and rotate.
  // Where log files are scarce, what is meant for another stream goes with what users write.
  bool reserve_room(uint64_t bytes, size_t records, Purpose purpose, Stream stream = Stream::kUser);
  void release_room();
  // Appends records as one batch: after kill -9 and after power loss all or none of them are there.
  // Gives each its sequence, if it has none. Room must have been reserved.
  std::vector<index::Placed> append(std::span<Record> records);
  // Seals at once, however much is in flight; returns the last sealed group.
  GroupSequence seal();
  // Seals and leaves the current files, so that the cleaner can have all of them.
  void rotate();
  // Sends an empty group, whose watermark vouches for the groups before it.
  void attest();
  // Moves every group that is not durable to a fresh log file, after one could not be written.
  // Called by the hook below. `moved` is told about each record: from where to where.
  using Moved = std::function<void(const Record&, Position from, Position to)>;
  void relocate(const Moved& moved);
  // Where the files end that it will leave. The superblock has to know first: else a part of a
  // group that was left in its old place would later be taken for damage.
  std::vector<Cut> unwritten() const;
  // It cannot be done: the log refuses further changes.
  void give_up(const Error& why);

  // --- any thread ---

  // What to call when a group could not be written: it notes the cuts in the superblock, takes the
  // Store's lock and calls relocate().
  // To be set before the first append. Called on a thread of the storage, with no lock held.
  void on_trouble(std::function<void()> hook) { trouble_ = std::move(hook); }
  // How often that has happened: positions of records that were not durable changed then.
  uint64_t relocations() const;

  // Waits until reserve_room() may be true. ENOSPC: there is no room for another log file.
  Status wait_for_room(uint64_t bytes, size_t records, Purpose purpose,
                       Stream stream = Stream::kUser);

  // Calls `done` when everything appended so far is durable, or has failed to become so.
  void sync(Done done);
  // … and waits. If it has something to send, this thread does it.
  Status sync();
  // Seals and sends what there is, without waiting.
  void push();
  // Copies bytes of a record that is still in a slot; false if it is not, or has not so many.
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
  uint64_t bytes_sent() const;  // of groups, padding included
  // Waits until nothing is in flight and everybody who waits for a commit has been called. What was
  // appended must have been synced before.
  void wait_for_calls();
  // The next append may have to wait: for a slot, or for a log file to be prepared.
  bool is_crowded(Purpose purpose) const;
  // Bytes that the current file still takes.
  uint64_t room_left() const;
  // Where the sealed groups of a file end, be it still written to or not.
  uint64_t sealed_end(const LogFile& file) const;

 private:
  enum class State { kFree, kOpen, kSealed, kInFlight, kWritten };
  struct Slot {
    State state = State::kFree;
    LogFileRef file;
    Stream stream = Stream::kUser;  // of the file
    GroupPlace place;
    uint64_t end = 0;       // bytes used, header included
    uint64_t capacity = 0;  // bytes the group may take
    uint64_t length = 0;    // sealed: bytes on the disk
    ObjectId highest_object = 0;
    std::chrono::steady_clock::time_point opened;
    GroupSummary summary;
    std::vector<Gap> gaps;  // large payloads in it
  };
  struct Waiter {
    GroupSequence group;
    Done done;
  };
  // Where the next group of a stream goes.
  struct Active {
    LogFileRef file;
    uint64_t next_offset = 0;
  };
  struct Need {
    uint64_t bytes;
    size_t records;
    Purpose purpose;
    Stream stream;
  };
  using Lock = std::unique_lock<std::mutex>;

  bool open_slot_fits(const Need& need) const;
  bool room(Need need);
  bool file_fits(Stream stream, const Need& need) const;
  bool is_out_of_place(const Active& at) const;
  uint64_t room_in_file() const;
  Stream usable_stream(const Need& need) const;
  static size_t spares_kept(Purpose purpose);
  size_t spares_needed(const Need& need) const;
  std::optional<uint32_t> free_slot() const;
  bool open_slot(const Need& need);
  void describe_slot(uint32_t slot);
  static void note_payload(Slot& slot, const Record& record, uint64_t offset);
  void seal_open();
  void seal(Slot& slot, std::byte* image);
  void cancel_open();
  uint32_t close_open();
  void send(uint32_t slot);
  void note_sent(uint32_t slot);
  bool may_send() const;
  GroupSequence send_here();
  GroupSequence last_with_records() const;
  void call_when_durable(GroupSequence target, Done done);
  void leave_file(Stream stream);
  Active& active(Stream stream) { return active_[static_cast<size_t>(stream)]; }
  const Active& active(Stream stream) const { return active_[static_cast<size_t>(stream)]; }
  bool may_relocate(uint64_t bytes);
  void leave_unwritten_files();
  void relocate_slot(uint32_t from, uint32_t to, const Moved& moved);
  void completed(uint32_t slot, Status status);
  std::vector<std::pair<Done, Status>> advance();
  void request_seal();
  void end_reservation();
  bool open_has_records() const;

  storage::Storage& storage_;
  LogFiles& files_;
  Staging& staging_;
  const Clock clock_;
  const uint32_t max_records_;  // of a group
  std::atomic<ObjectId> next_object_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;
  uint32_t reserve_ = 0;  // a free slot that only relocation may use
  std::optional<uint32_t> open_;
  std::deque<uint32_t> in_order_;  // sealed slots, oldest first
  size_t in_flight_ = 0;
  bool seal_wanted_ = false;
  bool reserved_ = false;  // somebody is about to append to the open slot
  bool attested_ = true;
  std::array<Active, kStreams> active_;
  GroupSequence next_group_;
  RecordSequence next_record_;
  uint64_t previous_end_;
  uint32_t previous_crc_;
  GroupSequence durable_;
  GroupSequence last_sealed_;
  uint64_t groups_sent_ = 0;
  uint64_t bytes_sent_ = 0;
  std::optional<Error> failure_;
  std::optional<Error> trouble_seen_;  // a group could not be written; nothing is sent until moved
  uint64_t relocations_ = 0;
  std::function<void()> trouble_;
  std::deque<Waiter> waiters_;  // by group
};

}  // namespace valfs::log
