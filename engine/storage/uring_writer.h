// Durable writes through io_uring.
//
// One thread owns the ring: it alone submits and reaps. Callers hand their writes over in a queue
// and wake it through an eventfd which the ring reads. The other design, in which every caller
// submits under a mutex, saves no wake-up: the kernel posts a completion from the thread that
// submitted it, so that the caller would be interrupted first (which gives spurious EINTR in its
// epoll_wait) and the ring's thread woken after that; and a caller that exits takes its writes with
// it (ECANCELED). One owner has neither, and an empty ring, a full one, and a write to be continued
// all look the same to it.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/base/status.h"
#include "engine/storage/durable_writer.h"

namespace valfs::storage {

class UringWriter final : public DurableWriter {
 public:
  // At most `depth` writes are with the kernel at a time. An error's text is the reason alone.
  static Result<std::unique_ptr<UringWriter>> open(unsigned depth);
  ~UringWriter() override;

  void start(DurableWrite write) override;
  // Makes the open file a fixed file of the ring: the kernel lets go of those last.
  Status keep_open(int fd) override;

 private:
  explicit UringWriter(unsigned depth);
  Status set_up();

  // The ring's thread.
  void run();
  bool fill();
  void reap();
  void submit_wake_read();
  void submit(size_t slot);
  io_uring_sqe* next_entry();

  io_uring ring_{};
  bool ring_made_ = false;
  OpenFile wake_;            // an eventfd
  uint64_t wake_count_ = 0;  // what the ring reads from it

  // Of the ring's thread alone. A write's slot is the tag of its request.
  std::vector<DurableWrite> slots_;
  std::vector<size_t> free_slots_;

  std::mutex mutex_;
  std::deque<DurableWrite> queue_;  // not yet with the kernel
  bool must_wake_ = false;          // the thread sleeps, or is about to, and knows no work
  bool stopping_ = false;
  bool keeps_file_ = false;

  std::thread thread_;
};

}  // namespace valfs::storage
