#include "engine/log/log_writer.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/planted.h"

namespace valfs::log {
namespace {

// So many groups on their way before a sync waits for company: more gain little on one disk, and
// fill slots that bulk writes need.
constexpr size_t kGroupsInFlight = 4;

}  // namespace

LogWriter::LogWriter(storage::Storage& storage, LogFiles& files, Staging& staging,
                     const Start& start, Clock clock, uint32_t max_records)
    : storage_(storage),
      files_(files),
      staging_(staging),
      clock_(std::move(clock)),
      max_records_(max_records),
      next_object_(start.next_object),
      slots_(staging.slot_count()),
      reserve_(staging.slot_count() - 1),
      next_group_(start.next_group),
      next_record_(start.next_record),
      previous_end_(start.previous_end),
      previous_crc_(start.previous_crc),
      durable_(start.next_group - 1),
      last_sealed_(start.next_group - 1) {}

LogWriter::~LogWriter() {
  Lock lock(mutex_);
  storage_.wait(lock, changed_, [this] { return in_flight_ == 0; });
}

bool LogWriter::open_has_records() const {
  return open_ && slots_[*open_].summary.record_count() > 0;
}

bool LogWriter::open_slot_fits(const Need& need) const {
  const Slot& slot = slots_[*open_];
  const size_t records = slot.summary.record_count() + need.records;
  return slot.stream == need.stream && records <= max_records_ &&
         group_length(slot.end + need.bytes, records) <= slot.capacity;
}

bool LogWriter::file_fits(Stream stream, const Need& need) const {
  const Active& at = active(stream);
  const uint64_t length = group_length(sizeof(GroupHeader) + need.bytes, need.records);
  return at.file && at.next_offset + length <= at.file->size;
}

// A file of its own for each stream is worth having only while there are files to spare.
Stream LogWriter::usable_stream(const Need& need) const {
  if (file_fits(need.stream, need) || files_.spares() > spares_kept(Purpose::kOrdinary)) {
    return need.stream;
  }
  return Stream::kUser;
}

// Bulk is over, and what was prepared for it makes short groups slow.
bool LogWriter::is_out_of_place(const Active& at) const {
  return at.file && !at.file->zeroed && !files_.is_bulk() && files_.zeroed_spare();
}

// So many prepared files an append must leave. The cleaner has one for itself, so that it can
// always copy what is live in a file before it frees it; deletes have another.
size_t LogWriter::spares_kept(Purpose purpose) {
  if (planted(Bug::kSpendTheReserve)) return 0;
  switch (purpose) {
    case Purpose::kOrdinary:
      return 2;
    case Purpose::kReserve:
      return 1;
    case Purpose::kCleaner:
      return 0;
  }
  return 2;
}

// So many prepared files there must be for an append.
size_t LogWriter::spares_needed(const Need& need) const {
  const bool fits = (open_ && open_slot_fits(need)) || file_fits(need.stream, need);
  return spares_kept(need.purpose) + (fits ? 0 : 1);
}

uint64_t LogWriter::room_left() const {
  const Lock lock(mutex_);
  // It is left as soon as there is a spare for that.
  return is_out_of_place(active(Stream::kUser)) ? 0 : room_in_file();
}

uint64_t LogWriter::room_in_file() const {
  const Active& at = active(Stream::kUser);
  if (!at.file) return 0;
  const bool open = open_ && slots_[*open_].stream == Stream::kUser;
  const uint64_t used = at.next_offset + (open ? slots_[*open_].end : 0);
  return at.file->size > used ? at.file->size - used : 0;
}

bool LogWriter::is_crowded(Purpose purpose) const {
  const Lock lock(mutex_);
  const bool file_ends = room_in_file() < staging_.slot_size();
  return trouble_seen_ || !free_slot() ||
         files_.spares() < spares_kept(purpose) + (file_ends ? 1 : 0);
}

uint64_t LogWriter::sealed_end(const LogFile& file) const {
  const Lock lock(mutex_);
  for (const Active& at : active_) {
    if (at.file.get() == &file) return at.next_offset;
  }
  return files_.state_of(file).end;
}

std::optional<uint32_t> LogWriter::free_slot() const {
  for (uint32_t slot = 0; slot < slots_.size(); slot++) {
    if (slot != reserve_ && slots_[slot].state == State::kFree) return slot;
  }
  return std::nullopt;
}

bool LogWriter::reserve_room(uint64_t bytes, size_t records, Purpose purpose, Stream stream) {
  const Lock lock(mutex_);
  reserved_ = room({bytes, records, purpose, stream});
  return reserved_;
}

void LogWriter::release_room() {
  const Lock lock(mutex_);
  end_reservation();
}

void LogWriter::end_reservation() {
  reserved_ = false;
  if (seal_wanted_) request_seal();
  changed_.notify_all();
}

bool LogWriter::room(Need need) {
  if (failure_ || trouble_seen_) return false;
  // Where the reserve has been used up it has to be made up first.
  if (files_.spares() < spares_kept(need.purpose)) return false;
  if (group_length(sizeof(GroupHeader) + need.bytes, need.records) > staging_.slot_size()) {
    return false;
  }
  need.stream = usable_stream(need);
  if (open_ && open_slot_fits(need)) return true;
  if (open_has_records()) seal_open();
  if (open_) cancel_open();  // too little is left of the file, or it is another stream's
  return open_slot(need);
}

bool LogWriter::open_slot(const Need& need) {
  const auto free = free_slot();
  if (!free) return false;
  const bool fits = file_fits(need.stream, need);
  const bool has_spare = files_.spares() > spares_kept(need.purpose);
  if (!fits && !has_spare) return false;
  if (!fits || (has_spare && is_out_of_place(active(need.stream)))) {
    leave_file(need.stream);
    active(need.stream) = {files_.take_spare(need.stream), kFirstGroupOffset};
    VALFS_CHECK(file_fits(need.stream, need));
  }
  const Active& at = active(need.stream);
  Slot& slot = slots_[*free];
  slot.state = State::kOpen;
  slot.file = at.file;
  slot.stream = need.stream;
  slot.place = {files_.salt(*at.file), at.next_offset, next_group_++,
                need.stream,           previous_end_,  previous_crc_};
  slot.end = sizeof(GroupHeader);
  slot.capacity =
      std::min(staging_.slot_size(), (at.file->size - at.next_offset) / kBlock * kBlock);
  slot.highest_object = 0;
  slot.summary.clear();
  slot.gaps.clear();
  describe_slot(*free);
  open_ = *free;
  return true;
}

// Says in the staging memory where a slot's group is bound for.
void LogWriter::describe_slot(uint32_t number) {
  const GroupPlace& place = slots_[number].place;
  SlotHeader& header = staging_.header(number);
  header.sequence = place.sequence;
  header.file = place.salt.file;
  header.epoch = place.salt.epoch;
  header.offset = place.offset;
  header.stream = place.stream;
  header.previous_end = place.previous_end;
  header.previous_crc = place.previous_crc;
}

void LogWriter::cancel_open() {
  slots_[*open_].state = State::kFree;
  slots_[*open_].file.reset();
  next_group_--;
  open_.reset();
}

void LogWriter::leave_file(Stream stream) {
  Active& at = active(stream);
  if (!at.file) return;
  files_.mark_sealed(*at.file);
  at.file.reset();
}

std::vector<index::Placed> LogWriter::append(std::span<Record> records) {
  std::vector<index::Placed> placed;
  placed.reserve(records.size());
  const Lock lock(mutex_);
  VALFS_CHECK(open_ && reserved_);
  Slot& slot = slots_[*open_];
  if (slot.summary.record_count() == 0) slot.opened = clock_();
  std::byte* image = staging_.image(*open_);
  for (Record& record : records) {
    if (record.sequence == 0) record.sequence = next_record_++;
    const uint64_t offset = slot.place.offset + slot.end;
    const uint64_t length = record.total_length();
    VALFS_CHECK(group_length(slot.end + length, slot.summary.record_count() + 1) <= slot.capacity);
    const uint32_t crc = encode(record, slot.place.salt, offset, image + slot.end);
    slot.summary.add(record, crc, static_cast<uint32_t>(slot.end));
    slot.highest_object = std::max(slot.highest_object, record.id);
    note_payload(slot, record, offset);
    placed.push_back({Position::at(slot.place.salt.file, offset), record.meta_length(),
                      static_cast<uint32_t>(record.payload.size())});
    slot.end += length;
  }
  // From here on the batch survives kill -9.
  if (!planted(Bug::kStageAtSealOnly)) {
    staging_.header(*open_).committed.store(slot.end, std::memory_order_release);
  }
  files_.grew(*slot.file, slot.place.offset + group_length(slot.end, slot.summary.record_count()),
              slot.place.sequence, slot.highest_object);
  attested_ = false;
  end_reservation();
  return placed;
}

void LogWriter::note_payload(Slot& slot, const Record& record, uint64_t offset) {
  if (record.payload.size() < kSkippedPayload) return;
  slot.gaps.push_back({static_cast<uint32_t>((offset + record.meta_length()) / kRecordAlignment),
                       static_cast<uint32_t>(record.payload.size())});
}

void LogWriter::seal_open() {
  const uint32_t number = close_open();
  if (!trouble_seen_) send(number);
}

// Seals without sending.
uint32_t LogWriter::close_open() {
  const uint32_t number = *open_;
  Slot& slot = slots_[number];
  staging_.header(number).committed.store(slot.end, std::memory_order_release);
  seal(slot, staging_.image(number));
  last_sealed_ = slot.place.sequence;
  in_order_.push_back(number);
  open_.reset();
  seal_wanted_ = false;
  return number;
}

// Closes the group in its slot; the next one follows it.
void LogWriter::seal(Slot& slot, std::byte* image) {
  const GroupSequence watermark = planted(Bug::kWatermarkAhead) ? slot.place.sequence : durable_;
  const GroupHeader header =
      seal_group(image, slot.end, slot.summary, slot.place, watermark, next_record_, next_object());
  slot.length = round_up(header.length, kBlock);
  slot.state = State::kSealed;
  files_.grew(*slot.file, slot.place.offset + slot.length, slot.place.sequence,
              slot.highest_object);
  FooterGroup entry;
  entry.sequence = slot.place.sequence;
  entry.offset = static_cast<uint32_t>(slot.place.offset / kBlock);
  entry.length = static_cast<uint32_t>(slot.length / kBlock);
  entry.crc = header.crc;
  files_.map_group(*slot.file, entry, slot.gaps);
  if (slot.stream == Stream::kUser) files_.note_group(slot.length);
  active(slot.stream).next_offset = slot.place.offset + slot.length;
  previous_end_ = Position::at(slot.place.salt.file, slot.place.offset + slot.length).packed;
  previous_crc_ = header.crc;
}

void LogWriter::send(uint32_t number) {
  note_sent(number);
  const Slot& slot = slots_[number];
  slot.file->file->write_durably(
      slot.place.offset, {staging_.image(number), slot.length},
      [this, number](Status status) { completed(number, std::move(status)); });
}

void LogWriter::note_sent(uint32_t number) {
  slots_[number].state = State::kInFlight;
  in_flight_++;
  groups_sent_++;
  bytes_sent_ += slots_[number].length;
  if (planted(Bug::kFreeSlotWhenSent)) staging_.header(number).committed.store(0);
}

bool LogWriter::may_send() const {
  return in_flight_ < kGroupsInFlight && !reserved_ && !trouble_seen_;
}

void LogWriter::request_seal() {
  if (!open_has_records() || failure_) return;
  if (may_send()) {
    seal_open();
  } else {
    seal_wanted_ = true;
  }
}

void LogWriter::completed(uint32_t number, Status status) {
  std::vector<std::pair<Done, Status>> calls;
  bool trouble = false;
  {
    const Lock lock(mutex_);
    if (planted(Bug::kIgnoreWriteError)) status = Status{};
    slots_[number].state = status ? State::kWritten : State::kSealed;
    if (!status && !failure_) {
      // What was moved once and fails again has no better place to go to.
      if (relocations_ > 0 || !trouble_) {
        failure_ = status.error();
      } else if (!trouble_seen_) {
        trouble_seen_ = status.error();
      }
    }
    if (planted(Bug::kAcknowledgeOutOfOrder) && status) {
      durable_ = std::max(durable_, slots_[number].place.sequence);
    }
    calls = advance();
    // Nothing is sent while there is trouble, so the last one that comes back stays the last.
    trouble = trouble_seen_ && !failure_ && in_flight_ == 1;
  }
  for (auto& [done, result] : calls) done(result);
  if (trouble) {
    trouble_();
    {
      const Lock lock(mutex_);
      calls = advance();
    }
    for (auto& [done, result] : calls) done(result);
  }
  // Last: whoever waits for nothing to be in flight may end this object's life.
  const Lock lock(mutex_);
  in_flight_--;
  if (seal_wanted_) request_seal();
  changed_.notify_all();
}

std::vector<std::pair<LogWriter::Done, Status>> LogWriter::advance() {
  std::vector<std::pair<Done, Status>> calls;
  if (failure_) {
    // The slots keep what was accepted: it stays readable, and a later mount finds it there.
    for (Waiter& waiter : waiters_) {
      calls.emplace_back(std::move(waiter.done), tl::unexpected(*failure_));
    }
    waiters_.clear();
    return calls;
  }
  while (!in_order_.empty() && slots_[in_order_.front()].state == State::kWritten) {
    const uint32_t number = in_order_.front();
    in_order_.pop_front();
    durable_ = slots_[number].place.sequence;
    staging_.header(number).committed.store(0, std::memory_order_release);
    slots_[number].state = State::kFree;
    slots_[number].file.reset();
  }
  while (!waiters_.empty() && waiters_.front().group <= durable_) {
    calls.emplace_back(std::move(waiters_.front().done), Status{});
    waiters_.pop_front();
  }
  return calls;
}

Status LogWriter::wait_for_room(uint64_t bytes, size_t records, Purpose purpose, Stream stream) {
  const Need need{bytes, records, purpose, stream};
  if (group_length(sizeof(GroupHeader) + bytes, records) > staging_.slot_size()) {
    return fail(EFBIG, "a batch of " + std::to_string(bytes) + " bytes does not fit in a group");
  }
  for (;;) {
    size_t spares = 0;
    {
      Lock lock(mutex_);
      // Not while somebody is about to append to the open slot: room() may seal it.
      const auto may_look = [this] {
        return failure_ || (!reserved_ && !trouble_seen_ && (open_ || free_slot()));
      };
      storage_.wait(lock, changed_, may_look);
      if (failure_) return tl::unexpected(*failure_);
      if (room(need)) return {};
      // The file is full and no spare may be taken, or the reserve has to be made up first.
      spares = spares_needed(need);
      if (files_.spares() >= spares) continue;  // a slot is all that was missing
    }
    VALFS_TRY(files_.prepare(spares, purpose != Purpose::kOrdinary));
  }
}

GroupSequence LogWriter::seal() {
  const Lock lock(mutex_);
  if (open_has_records() && !failure_) seal_open();
  return last_sealed_;
}

void LogWriter::attest() {
  const Lock lock(mutex_);
  if (planted(Bug::kNoAttestation)) return;
  if (failure_ || attested_ || reserved_ || open_has_records() || in_flight_ > 0) return;
  if (!open_ && !room({0, 0, Purpose::kOrdinary, Stream::kUser})) return;
  seal_open();
  attested_ = true;
}

void LogWriter::rotate() {
  const Lock lock(mutex_);
  if (failure_) return;
  if (open_has_records()) seal_open();
  if (open_) cancel_open();
  for (const Stream stream : {Stream::kUser, Stream::kWarm, Stream::kCold}) {
    if (active(stream).next_offset > kFirstGroupOffset) leave_file(stream);
  }
}

bool LogWriter::read(Position record, uint64_t lead, std::span<std::byte> into) {
  const Lock lock(mutex_);
  for (uint32_t number = 0; number < slots_.size(); number++) {
    const Slot& slot = slots_[number];
    if (slot.state == State::kFree || slot.place.salt.file != record.file()) continue;
    const uint64_t start = slot.place.offset;
    if (record.offset() < start || record.offset() >= start + slot.end) continue;
    if (record.offset() - start + lead + into.size() > slot.end) return false;
    std::memcpy(into.data(), staging_.image(number) + (record.offset() - start) + lead,
                into.size());
    return true;
  }
  return false;
}

RecordSequence LogWriter::next_record() const {
  const Lock lock(mutex_);
  return next_record_;
}

GroupSequence LogWriter::appended() const {
  const Lock lock(mutex_);
  return last_with_records();
}

GroupSequence LogWriter::durable() const {
  const Lock lock(mutex_);
  return durable_;
}

std::optional<std::chrono::steady_clock::time_point> LogWriter::undurable_since() const {
  const Lock lock(mutex_);
  if (!in_order_.empty()) return slots_[in_order_.front()].opened;
  if (open_has_records()) return slots_[*open_].opened;
  return std::nullopt;
}

bool LogWriter::attested() const {
  const Lock lock(mutex_);
  return attested_;
}

std::optional<Error> LogWriter::failure() const {
  const Lock lock(mutex_);
  return failure_;
}

uint64_t LogWriter::bytes_sent() const {
  const Lock lock(mutex_);
  return bytes_sent_;
}

uint64_t LogWriter::groups_sent() const {
  const Lock lock(mutex_);
  return groups_sent_;
}

uint64_t LogWriter::relocations() const {
  const Lock lock(mutex_);
  return relocations_;
}

}  // namespace valfs::log
