#include "engine/storage/uring_writer.h"

#include <sys/eventfd.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "engine/base/check.h"
#include "engine/storage/io_thread.h"

namespace valfs::storage {
namespace {

constexpr uint64_t kWakeTag = ~uint64_t{0};
constexpr size_t kMaxRequest = size_t{1} << 30;  // a request's length and its result have 32 bits

tl::unexpected<Error> refusal(int code) {
  return fail(code, reason(code));
}

}  // namespace

Result<std::unique_ptr<UringWriter>> UringWriter::open(unsigned depth) {
  std::unique_ptr<UringWriter> writer(new UringWriter(depth));
  VALFS_TRY(writer->set_up());
  return writer;
}

UringWriter::UringWriter(unsigned depth)
    : wake_(::eventfd(0, EFD_CLOEXEC), "eventfd"), slots_(depth) {
  for (size_t slot = 0; slot < slots_.size(); ++slot) free_slots_.push_back(slot);
}

Status UringWriter::set_up() {
  if (slots_.empty()) return fail(EINVAL, "no room for a single write");
  if (wake_.fd() < 0) return refusal(errno);
  const auto entries = static_cast<unsigned>(slots_.size()) + 1;  // and the eventfd's read
  if (int code = -io_uring_queue_init(entries, &ring_, 0); code > 0) return refusal(code);
  ring_made_ = true;
  io_uring_probe* probe = io_uring_get_probe_ring(&ring_);
  const bool usable = probe != nullptr && io_uring_opcode_supported(probe, IORING_OP_WRITE);
  io_uring_free_probe(probe);
  if (!usable) return fail(ENOSYS, "the kernel's is too old");
  thread_ = start_io_thread("valfs-ring", [this] { run(); });
  return {};
}

UringWriter::~UringWriter() {
  if (thread_.joinable()) {
    {
      std::lock_guard guard(mutex_);
      stopping_ = true;
    }
    eventfd_write(wake_.fd(), 1);
    thread_.join();
  }
  if (!ring_made_) return;
  // At once; the exit alone would let go of the file some time later, and until then the file
  // system below could not be unmounted.
  if (keeps_file_) io_uring_unregister_files(&ring_);
  io_uring_queue_exit(&ring_);
}

void UringWriter::start(DurableWrite write) {
  bool wake = false;
  {
    std::lock_guard guard(mutex_);
    queue_.push_back(std::move(write));
    wake = std::exchange(must_wake_, false);
  }
  if (wake) eventfd_write(wake_.fd(), 1);
}

Status UringWriter::keep_open(int fd) {
  std::lock_guard guard(mutex_);
  if (std::exchange(keeps_file_, false)) io_uring_unregister_files(&ring_);
  if (int code = -io_uring_register_files(&ring_, &fd, 1); code > 0)
    return fail(code, "cannot register a file with io_uring: " + reason(code));
  keeps_file_ = true;
  return {};
}

void UringWriter::run() {
  submit_wake_read();
  while (fill()) {
    const int outcome = io_uring_submit_and_wait(&ring_, 1);
    // These three leave requests in the ring, which the next round submits.
    VALFS_CHECK(outcome >= 0 || outcome == -EINTR || outcome == -EAGAIN || outcome == -EBUSY);
    reap();
  }
}

// Gives the kernel what waits, as far as there are slots. False when the thread is to end.
bool UringWriter::fill() {
  std::lock_guard guard(mutex_);
  while (!queue_.empty() && !free_slots_.empty()) {
    const size_t slot = free_slots_.back();
    free_slots_.pop_back();
    slots_[slot] = std::move(queue_.front());
    queue_.pop_front();
    submit(slot);
  }
  must_wake_ = queue_.empty();  // else the ring is full, and a completion is the news to wait for
  return !(stopping_ && queue_.empty() && free_slots_.size() == slots_.size());
}

void UringWriter::reap() {
  {
    std::lock_guard guard(mutex_);
    must_wake_ = false;  // fill() comes after this, and finds what is queued meanwhile
  }
  io_uring_cqe* entry = nullptr;
  while (io_uring_peek_cqe(&ring_, &entry) == 0) {
    const uint64_t tag = entry->user_data;
    const int outcome = entry->res;
    io_uring_cqe_seen(&ring_, entry);
    if (tag == kWakeTag) {
      submit_wake_read();
      continue;
    }
    slots_[tag].advance(outcome);
    if (!slots_[tag].over()) {
      submit(tag);
      continue;
    }
    DurableWrite write = std::move(slots_[tag]);
    free_slots_.push_back(tag);
    write.finish();
  }
}

void UringWriter::submit_wake_read() {
  io_uring_sqe* entry = next_entry();
  io_uring_prep_read(entry, wake_.fd(), &wake_count_, sizeof wake_count_, 0);
  io_uring_sqe_set_data64(entry, kWakeTag);
}

void UringWriter::submit(size_t slot) {
  const DurableWrite& write = slots_[slot];
  io_uring_sqe* entry = next_entry();
  if (write.over()) {
    io_uring_prep_nop(entry);  // its end is told in the usual way
  } else {
    const auto length = static_cast<unsigned>(std::min(write.rest.size(), kMaxRequest));
    io_uring_prep_write(entry, write.file->fd(), write.rest.data(), length, write.offset);
    entry->rw_flags = RWF_DSYNC;
  }
  io_uring_sqe_set_data64(entry, slot);
}

io_uring_sqe* UringWriter::next_entry() {
  io_uring_sqe* entry = io_uring_get_sqe(&ring_);
  VALFS_CHECK(entry != nullptr);  // the ring has an entry for each slot and for the eventfd
  return entry;
}

}  // namespace valfs::storage
