#include "fs/channel/channel.h"

#include <linux/fuse.h>
#include <spdlog/spdlog.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <utility>

#include "fs/file_system.h"

namespace valfs::fs {
namespace {

// Requests that may be unanswered at a time, over all CPUs and on each: one that waits for a commit
// keeps its entry, and whoever comes when none is left waits with it.
constexpr uint32_t kEntries = 2048;
constexpr uint32_t kMostEntries = 64;
constexpr uint32_t kLeastEntries = 8;

// A FORGET that waits so long meets others, and the kernel hands them over together: deleting files
// is 1.5 to 3 times as fast. Nobody waits for one.
constexpr timespec kForgetPause{0, 2'000'000};

constexpr const char* kSwitch = "/sys/module/fuse/parameters/enable_uring";
constexpr const char* kAutogroups = "/proc/sys/kernel/sched_autogroup_enabled";
constexpr const char* kTurnOn =
    "echo 1 > /sys/module/fuse/parameters/enable_uring (for good: options fuse enable_uring=1 in "
    "/etc/modprobe.d/fuse.conf), then mount again";

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Of one request or answer: what FileSystem asks of INIT.
constexpr uint32_t kPayload = FileSystem::kLargestRequest;
static_assert(kPayload >= uring::kSmallestPayload);

// One ring for each CPU that there can ever be: the kernel waits for all of them.
unsigned possible_cpus() {
  // "0-7", or "0" alone: CPUs are numbered without gaps.
  const std::string range = first_line("/sys/devices/system/cpu/possible");
  const size_t dash = range.rfind('-');
  const std::string last = dash == std::string::npos ? range : range.substr(dash + 1);
  return last.empty() ? 0 : static_cast<unsigned>(std::strtoul(last.c_str(), nullptr, 10)) + 1;
}

}  // namespace

Result<std::unique_ptr<Channel>> Channel::attach(fuse_session* session, Transport transport,
                                                 Callbacks callbacks) {
  std::unique_ptr<Channel> channel(new Channel(session, std::move(callbacks)));
  if (transport == Transport::kDev) {
    channel->why_not_ = "as asked for";
  } else if (const auto made = channel->make_rings(); made) {
    channel->rings_ = Rings::kReady;
  } else {
    channel->queues_.clear();
    channel->why_not_ = made.error().what;
    if (transport == Transport::kUring) {
      const std::string next =
          channel->switched_off_ ? std::string("; turn it on: ") + kTurnOn : "";
      return fail(made.error().code, "transport=uring: " + made.error().what + next);
    }
  }
  fuse_custom_io io{};
  io.read = [](int fd, void* into, size_t length, void* user) {
    return static_cast<FileSystem*>(user)->channel().read(fd, into, length);
  };
  io.writev = [](int fd, iovec* parts, int count, void* user) {
    return static_cast<FileSystem*>(user)->channel().write(fd, parts, count);
  };
  if (fuse_session_custom_io(session, &io, fuse_session_fd(session)) != 0) {
    return fail(EINVAL, "this libfuse takes no channel of ours");
  }
  return channel;
}

Status Channel::make_rings() {
  const std::string on = first_line(kSwitch);
  if (on.empty()) return fail(ENOSYS, "this kernel has no FUSE over io_uring (6.14 has)");
  if (on == "N" || on == "0") {
    switched_off_ = true;
    return fail(EOPNOTSUPP, "FUSE over io_uring is switched off");
  }
  const unsigned cpus = possible_cpus();
  if (cpus == 0) return fail(ENOENT, "cannot tell how many CPUs there are");
  const uint32_t entries = std::clamp(kEntries / cpus, kLeastEntries, kMostEntries);
  for (unsigned cpu = 0; cpu < cpus; cpu++) {
    const auto dispatch = [this](std::span<std::byte> request) {
      fuse_buf buffer{};
      buffer.size = request.size();
      buffer.mem = request.data();
      fuse_session_process_buf(session_, &buffer);
    };
    VALFS_ASSIGN(auto queue, UringQueue::make({fuse_session_fd(session_), cpu, entries, kPayload},
                                              {dispatch, callbacks_.may_block, callbacks_.failed}));
    queues_.push_back(std::move(queue));
  }
  return {};
}

std::string Channel::notice() const {
  if (!switched_off_) return "";
  return std::string(
             "FUSE over io_uring is switched off; with it small files are served 2 to 4 times "
             "as fast. Turn it on: ") +
         kTurnOn;
}

void Channel::stop() {
  for (const auto& queue : queues_) queue->stop();
}

void Channel::run_blocking(std::function<void()> task) {
  UringQueue* const queue = UringQueue::current();
  if (queue == nullptr) return task();
  queue->workers().run(std::move(task));
}

std::string Channel::description() const {
  if (rings_ == Rings::kServing) return "io_uring";
  return "/dev/fuse (" + why_not_ + ")";
}

ssize_t Channel::read(int fd, void* into, size_t length) {
  thread_local bool forgot = false;
  for (;;) {
    if (std::exchange(forgot, false)) ::nanosleep(&kForgetPause, nullptr);
    const ssize_t got = ::read(fd, into, length);
    if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) return got;
    fuse_in_header header{};
    std::memcpy(&header, into, sizeof header);
    const bool serving = rings_ == Rings::kServing;
    // It names a request by a number that libfuse does not know, and nobody here would stop for it:
    // whatever waits waits for the disk.
    if (serving && header.opcode == FUSE_INTERRUPT) continue;
    forgot = serving && (header.opcode == FUSE_FORGET || header.opcode == FUSE_BATCH_FORGET);
    if (header.opcode == FUSE_INIT) {
      const size_t there = static_cast<size_t>(got) - sizeof header;
      std::memcpy(&offered_, static_cast<std::byte*>(into) + sizeof header,
                  std::min(there, sizeof offered_));
      init_ = header.unique;
    }
    return got;
  }
}

ssize_t Channel::write(int fd, iovec* parts, int count) {
  fuse_out_header header{};
  std::memcpy(&header, parts[0].iov_base, sizeof header);
  if (UringQueue::is_token(header.unique)) {
    queues_[UringQueue::cpu_of(header.unique)]->answer(
        header.unique, std::span<const iovec>(parts, static_cast<size_t>(count)));
    return header.len;
  }
  // 0 is a notification's.
  if (header.unique != 0 && header.unique == init_) return answer_init(fd, parts, count);
  return ::writev(fd, parts, count);
}

ssize_t Channel::answer_init(int fd, iovec* parts, int count) {
  uring::InitAnswer answer{};
  if (count != 2 || parts[1].iov_len != sizeof answer) return ::writev(fd, parts, count);
  init_ = 0;
  std::memcpy(&answer, parts[1].iov_base, sizeof answer);
  // libfuse 3.14 to 3.16 take this wish and do not pass it on.
  answer.flags |= offered_.flags & uring::kParallelDirectoryOperations;
  const bool fits = answer.max_write <= kPayload && answer.max_pages * 4096U <= kPayload;
  const bool offered =
      (offered_.flags & uring::kHasFlags2) != 0 && (offered_.flags2 & uring::kOverUring) != 0;
  const bool rings = rings_ == Rings::kReady && offered && fits;
  if (rings) {
    answer.flags |= uring::kHasFlags2;
    answer.flags2 |= uring::kOverUring;
  } else if (rings_ == Rings::kReady) {
    why_not_ = offered ? "libfuse asks for requests that are too large"
                       : "the kernel does not offer io_uring";
  }
  iovec patched[] = {parts[0], {&answer, sizeof answer}};
  const ssize_t written = ::writev(fd, patched, 2);
  if (written < 0 || !rings) return written;
  rings_ = Rings::kServing;
  if (first_line(kAutogroups) == "1") {
    spdlog::info(
        "autogroup scheduling may slow down a client that is alone; to end it: "
        "sysctl kernel.sched_autogroup_enabled=0");
  }
  for (const auto& queue : queues_) queue->start();
  return written;
}

}  // namespace valfs::fs
