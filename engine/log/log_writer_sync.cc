// Waiting until what was appended is durable (log_writer.h).
#include <algorithm>

#include "engine/base/planted.h"
#include "engine/log/log_writer.h"

namespace valfs::log {

GroupSequence LogWriter::last_with_records() const {
  const bool open = open_has_records() && !planted(Bug::kSyncForgetsOpenGroup);
  return open ? slots_[*open_].place.sequence : last_sealed_;
}

void LogWriter::sync(Done done) {
  GroupSequence target = 0;
  {
    const Lock lock(mutex_);
    request_seal();
    target = last_with_records();
  }
  call_when_durable(target, std::move(done));
}

void LogWriter::call_when_durable(GroupSequence target, Done done) {
  std::optional<Status> now;
  {
    const Lock lock(mutex_);
    if (failure_) {
      now = tl::unexpected(*failure_);
      if (planted(Bug::kReportFailureOnce)) failure_.reset();
    } else if (durable_ >= target || planted(Bug::kAcknowledgeWhenSent)) {
      now = Status{};
    } else {
      const auto later = std::upper_bound(
          waiters_.begin(), waiters_.end(), target,
          [](GroupSequence group, const Waiter& waiter) { return group < waiter.group; });
      waiters_.insert(later, {target, std::move(done)});
    }
  }
  if (now) done(*now);
}

void LogWriter::wait_for_calls() {
  Lock lock(mutex_);
  storage_.wait(lock, changed_, [this] { return waiters_.empty() && in_flight_ == 0; });
}

// Whoever waits may as well write: a lone caller's commit is one system call, and wakes nobody.
GroupSequence LogWriter::send_here() {
  uint32_t number = 0;
  GroupSequence target = 0;
  std::shared_ptr<storage::File> file;
  {
    const Lock lock(mutex_);
    target = last_with_records();
    if (failure_ || !open_has_records() || !may_send()) {
      request_seal();
      return target;
    }
    number = close_open();
    note_sent(number);
    file = slots_[number].file->file;
  }
  const Slot& slot = slots_[number];  // nobody changes it while it is in flight
  file->write_durably_here(slot.place.offset, {staging_.image(number), slot.length},
                           [this, number](Status status) { completed(number, std::move(status)); });
  return target;
}

Status LogWriter::sync() {
  const GroupSequence target = send_here();
  // Shared, because the waiter may wake before the callback has returned.
  struct Outcome {
    std::mutex mutex;
    std::condition_variable changed;
    std::optional<Status> status;
  };
  const auto outcome = std::make_shared<Outcome>();
  call_when_durable(target, [outcome](const Status& status) {
    const std::lock_guard lock(outcome->mutex);
    outcome->status = status;
    outcome->changed.notify_all();
  });
  Lock lock(outcome->mutex);
  storage_.wait(lock, outcome->changed, [&] { return outcome->status.has_value(); });
  return *outcome->status;
}

void LogWriter::push() {
  const Lock lock(mutex_);
  if (!failure_) request_seal();
}

}  // namespace valfs::log
