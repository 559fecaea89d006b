// How groups that could not be written get another place (log_writer.h).
//
// The order matters to a process that is killed in between: a group is committed in its new slot
// before its old one is freed, so at every moment one of the two is whole. Recovery may find a
// group twice, and takes the one in the younger file.
#include <algorithm>
#include <map>

#include "engine/base/check.h"
#include "engine/base/planted.h"
#include "engine/log/log_writer.h"

namespace valfs::log {

// True if there is a file for the next of the groups to be moved, and it is the active one.
bool LogWriter::may_relocate(uint64_t bytes) {
  Active& at = active(Stream::kUser);
  if (at.file && at.next_offset + bytes <= at.file->size) return true;
  leave_file(Stream::kUser);
  if (files_.spares() == 0 && !files_.prepare(1, true)) return false;
  at = {files_.take_spare(Stream::kUser), kFirstGroupOffset};
  return at.next_offset + bytes <= at.file->size;
}

std::vector<Cut> LogWriter::unwritten() const {
  const Lock lock(mutex_);
  std::map<FileId, uint64_t> ends;
  const auto note = [&](const Slot& slot) {
    const auto [at, fresh] = ends.try_emplace(slot.file->id, slot.place.offset);
    if (!fresh) at->second = std::min(at->second, slot.place.offset);
  };
  for (const uint32_t number : in_order_) note(slots_[number]);
  if (open_) note(slots_[*open_]);
  std::vector<Cut> cuts;
  for (const auto& [file, end] : ends) cuts.push_back({file, 0, end});
  return cuts;
}

void LogWriter::give_up(const Error& why) {
  const Lock lock(mutex_);
  trouble_seen_.reset();
  if (!failure_) failure_ = why;
}

// The files in which something is not durable get no more of anything.
void LogWriter::leave_unwritten_files() {
  std::map<LogFileRef, uint64_t> ends;
  const auto note = [&](const Slot& slot) {
    const auto [at, fresh] = ends.try_emplace(slot.file, slot.place.offset);
    if (!fresh) at->second = std::min(at->second, slot.place.offset);
  };
  for (const uint32_t number : in_order_) note(slots_[number]);
  if (open_) note(slots_[*open_]);
  for (const auto& [file, end] : ends) {
    if (!planted(Bug::kMoveLeavesEnd)) files_.cut_back(*file, end, durable_);
  }
  for (const Stream stream : {Stream::kUser, Stream::kWarm, Stream::kCold}) {
    if (active(stream).file && ends.count(active(stream).file) > 0) leave_file(stream);
  }
}

// Encodes the group in slot `from` for its new place, in slot `to`.
void LogWriter::relocate_slot(uint32_t from, uint32_t to, const Moved& moved) {
  Slot& old = slots_[from];
  Slot& slot = slots_[to];
  const Active& at = active(Stream::kUser);
  const bool sealed = old.state != State::kOpen;
  const std::byte* image = staging_.image(from);
  slot = {};
  slot.state = State::kOpen;
  slot.file = at.file;
  slot.stream = Stream::kUser;
  slot.place = {files_.salt(*at.file), at.next_offset, old.place.sequence,
                Stream::kUser,         previous_end_,  previous_crc_};
  slot.capacity =
      std::min(staging_.slot_size(), (at.file->size - at.next_offset) / kBlock * kBlock);
  slot.highest_object = old.highest_object;
  slot.opened = old.opened;
  uint64_t offset = sizeof(GroupHeader);
  while (offset < old.end) {
    const auto found =
        decode({image + offset, old.end - offset}, old.place.salt, old.place.offset + offset);
    VALFS_CHECK(found.has_value());
    Record record = found->record;
    record.payload = {image + offset + found->meta_length, found->payload_length};
    std::vector<ManifestEntry> manifest;
    if (record.type == RecordType::kManifest) {
      manifest = entries_of(record.payload);
      if (!planted(Bug::kMoveLeavesManifest)) files_.amend(manifest);
      record.payload = std::as_bytes(std::span(manifest));
    }
    const uint32_t crc =
        encode(record, slot.place.salt, slot.place.offset + offset, staging_.image(to) + offset);
    note_payload(slot, record, slot.place.offset + offset);
    slot.summary.add(record, crc, static_cast<uint32_t>(offset));
    moved(record, Position::at(old.place.salt.file, old.place.offset + offset),
          Position::at(slot.place.salt.file, slot.place.offset + offset));
    offset += found->total_length;
  }
  slot.end = offset;
  describe_slot(to);
  staging_.header(to).committed.store(slot.end, std::memory_order_release);
  staging_.header(from).committed.store(0, std::memory_order_release);
  old.state = State::kFree;
  old.file.reset();
  if (sealed) {
    seal(slot, staging_.image(to));
  } else {
    files_.grew(*slot.file, slot.place.offset + group_length(slot.end, slot.summary.record_count()),
                slot.place.sequence, slot.highest_object);
  }
}

void LogWriter::relocate(const Moved& moved) {
  const Lock lock(mutex_);
  if (failure_ || !trouble_seen_) return;
  VALFS_CHECK(!reserved_);  // whoever appends holds the lock that the caller has
  if (open_ && !open_has_records()) cancel_open();
  std::vector<uint32_t> numbers(in_order_.begin(), in_order_.end());
  const bool had_open = open_.has_value();
  if (had_open) numbers.push_back(*open_);
  VALFS_CHECK(!numbers.empty());
  leave_unwritten_files();
  // Groups follow each other from the last durable one on.
  previous_end_ = slots_[numbers.front()].place.previous_end;
  previous_crc_ = slots_[numbers.front()].place.previous_crc;
  in_order_.clear();
  open_.reset();
  for (size_t i = 0; i < numbers.size(); i++) {
    const uint32_t from = numbers[i];
    const Slot& slot = slots_[from];
    const bool is_open = had_open && i + 1 == numbers.size();
    if (!may_relocate(group_length(slot.end, slot.summary.record_count()))) {
      // The groups not moved stay readable where they are.
      in_order_.insert(in_order_.end(), numbers.begin() + static_cast<ptrdiff_t>(i), numbers.end());
      failure_ = trouble_seen_;
      break;
    }
    relocate_slot(from, reserve_, moved);
    if (is_open) {
      open_ = reserve_;
    } else {
      in_order_.push_back(reserve_);
    }
    reserve_ = from;
  }
  relocations_++;
  trouble_seen_.reset();
  if (failure_) return;
  for (const uint32_t number : in_order_) send(number);
}

}  // namespace valfs::log
