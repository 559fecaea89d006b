// The ring of one CPU: requests of clients that run there come to it, and are answered by it.
//
// An *entry* is a pair of buffers. It is with the kernel until a request is put into it, with us
// until the answer has been committed, and dead once the kernel has refused it (the connection is
// gone). One thread, which stays on that CPU, takes requests and hands in answers. A handler that
// answers at once is answered for by the same system call that fetches the next request; other
// threads leave their answers in a list and wake the thread if it was empty.
#pragma once

#include <liburing.h>
#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "engine/base/status.h"
#include "fs/channel/uring_abi.h"
#include "fs/channel/workers.h"

namespace valfs::fs {

class UringQueue {
 public:
  struct Callbacks {
    // Takes a request as /dev/fuse would give it, its `unique` replaced by a token of ours. It
    // stays readable until it is answered, and not a moment longer.
    std::function<void(std::span<std::byte> request)> dispatch;
    // Whether a request of that opcode and so many bytes, about that inode, may block now, so that
    // workers should have it.
    std::function<bool(uint32_t opcode, uint64_t inode, size_t bytes)> may_block;
    // The ring cannot go on: what the kernel puts into it from now on would wait for ever.
    std::function<void()> failed;
  };

  struct Shape {
    int connection = -1;  // descriptor of /dev/fuse
    unsigned cpu = 0;
    uint32_t entries = 0;  // requests that may be unanswered at a time
    uint32_t payload = 0;  // bytes
  };

  // Has all that can fail for want of memory or permission behind it.
  static Result<std::unique_ptr<UringQueue>> make(const Shape& shape, Callbacks callbacks);
  // The thread must have been stopped.
  ~UringQueue();
  UringQueue(const UringQueue&) = delete;
  UringQueue& operator=(const UringQueue&) = delete;

  // Registers the entries with the connection, and serves. Once, when INIT has been answered.
  void start();
  // Ends the thread: call it when the connection is gone. Answers that come later go nowhere.
  void stop();

  static bool is_token(uint64_t unique) { return (unique & kToken) != 0; }
  static unsigned cpu_of(uint64_t token) { return (token >> kCpuShift) & kCpuMask; }
  // Hands in an answer: out header first, as for writev() on /dev/fuse. Any thread.
  void answer(uint64_t token, std::span<const iovec> parts);

  // The queue whose thread this is, if any.
  static UringQueue* current();
  Workers& workers() { return workers_; }
  uint64_t requests() const { return requests_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint64_t kToken = uint64_t{1} << 62;
  static constexpr unsigned kCpuShift = 12;
  static constexpr uint64_t kCpuMask = 0xffff;
  static constexpr unsigned kGenerationShift = 28;
  static constexpr uint64_t kGenerationMask = 0xffffffff;
  static constexpr uint32_t kNobody = UINT32_MAX;

  enum class At { kKernel, kUs, kNowhere };

  struct Entry {
    uring::EntryHeader* header = nullptr;
    std::byte* payload = nullptr;  // behind room for a request's header and first argument
    iovec buffers[2] = {};         // what the kernel is told of them
    At at = At::kNowhere;          // of the queue's thread
    std::atomic<uint64_t> token{0};
    uint64_t unique = 0;      // the kernel's for the request
    uint32_t next = kNobody;  // in the list of answers
  };

  UringQueue(const Shape& shape, Callbacks callbacks);
  Status set_up();
  void run();
  void take(const io_uring_cqe& completion);
  void take_request(uint32_t index);
  io_uring_sqe& submission();
  void submit(uint32_t index, uint32_t command);
  void await_wake_up();
  void hand_in();
  void retire(uint32_t index, int error);

  const Shape shape_;
  const Callbacks callbacks_;
  Workers workers_;
  io_uring ring_{};
  bool ring_made_ = false;
  int wake_ = -1;
  uint64_t woken_ = 0;  // what reading the eventfd gives
  std::byte* memory_ = nullptr;
  size_t memory_size_ = 0;
  std::unique_ptr<Entry[]> entries_;
  uint32_t alive_ = 0;
  int last_error_ = 0;  // that an entry has died of
  uint64_t generation_ = 0;
  std::atomic<uint32_t> answered_{kNobody};  // the list, newest first
  std::atomic<bool> stopping_{false};
  std::atomic<uint64_t> requests_{0};
  std::thread thread_;
};

}  // namespace valfs::fs
