// The channel below libfuse: FUSE over io_uring where the kernel has it, /dev/fuse for the rest.
//
// libfuse mounts, parses, dispatches and encodes; the channel carries. It changes one answer, that
// of INIT, and so turns on what the kernel offers and the distribution's libfuse does not know: the
// rings, and parallel operations in one directory. Once the rings serve, only INIT, FORGET and
// INTERRUPT come by /dev/fuse.
#pragma once

#include <fuse_lowlevel.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "fs/channel/uring_queue.h"
#include "fs/mount_options.h"

namespace valfs::fs {

class Channel {
 public:
  struct Callbacks {
    std::function<bool(uint32_t opcode, uint64_t inode, size_t bytes)> may_block;  // see UringQueue
    std::function<void()> failed;
  };

  // Puts itself below a mounted session, before its loop runs; the user data, a FileSystem, must
  // know it by then. An error only if rings are asked for (Transport::kUring) and cannot be had;
  // the text says what to do.
  static Result<std::unique_ptr<Channel>> attach(fuse_session* session, Transport transport,
                                                 Callbacks callbacks);
  // stop() it before the session is destroyed.
  ~Channel() { stop(); }
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Ends the rings' threads, once everything they were asked for is answered; for when the
  // session's loop has ended.
  void stop();

  // Does what may block: on a ring's thread by a worker of its CPU, else here.
  static void run_blocking(std::function<void()> task);
  // True on a thread that must not block.
  static bool must_not_block() { return UringQueue::current() != nullptr; }

  // What serves, and if it is not the rings, why: "io_uring", "/dev/fuse (…)".
  std::string description() const;
  // What the user should know: a line that makes the mount faster. Empty: nothing.
  std::string notice() const;

 private:
  enum class Rings { kNone, kReady, kServing };

  Channel(fuse_session* session, Callbacks callbacks)
      : session_(session), callbacks_(std::move(callbacks)) {}
  Status make_rings();
  ssize_t read(int fd, void* into, size_t length);
  ssize_t write(int fd, iovec* parts, int count);
  ssize_t answer_init(int fd, iovec* parts, int count);

  fuse_session* const session_;
  const Callbacks callbacks_;
  std::vector<std::unique_ptr<UringQueue>> queues_;  // by CPU
  std::string why_not_;                              // rings do not serve
  bool switched_off_ = false;                        // in the kernel
  std::atomic<Rings> rings_{Rings::kNone};
  std::atomic<uint64_t> init_{0};  // `unique` of INIT, until it is answered
  uring::InitRequest offered_{};
};

}  // namespace valfs::fs
