#include "fs/session.h"

#include <fcntl.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

#include "fs/mount_detach.h"

namespace valfs::fs {
namespace {

constexpr unsigned kThreads = 16;
constexpr std::chrono::milliseconds kWakePause{50};

// libfuse's only word on why a mount failed is a line of its log.
std::mutex last_words_mutex;
std::string last_words;

void log_for_fuse(fuse_log_level level, const char* format, va_list arguments) {
  char line[1024];
  std::vsnprintf(line, sizeof line, format, arguments);
  line[std::strcspn(line, "\n")] = '\0';
  if (level <= FUSE_LOG_ERR)
    spdlog::error("{}", line);
  else
    spdlog::debug("{}", line);
  const std::lock_guard lock(last_words_mutex);
  last_words = line;
}

std::string why() {
  const std::lock_guard lock(last_words_mutex);
  // fusermount3 speaks to the terminal itself.
  return last_words.empty() ? "fusermount3 refuses, see above" : last_words;
}

// Commas separate options in libfuse too.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    if (c == ',' || c == '\\') result += '\\';
    result += c;
  }
  return result;
}

std::string options_for_fuse(const MountPlan& plan) {
  const MountOptions& options = plan.options;
  std::string text = "subtype=valfs,fsname=" + escaped(plan.source());
  const auto add = [&](bool wanted, const char* name) {
    if (wanted) text += std::string(",") + name;
  };
  add(options.allow_other, "allow_other");
  add(options.default_permissions, "default_permissions");
  // Both are libfuse's default, and what fusermount3 enforces.
  add(plan.by_root && !options.nosuid, "suid");
  add(plan.by_root && !options.nodev, "dev");
  add(options.noexec, "noexec");
  add(options.noatime, "noatime");
  add(options.sync, "sync");
  add(options.dirsync, "dirsync");
  return text;
}

fuse_session* make_fuse_session(const MountPlan& plan, FileSystem& file_system) {
  fuse_args arguments = FUSE_ARGS_INIT(0, nullptr);
  fuse_session* session = nullptr;
  if (fuse_opt_add_arg(&arguments, "valfs") == 0 && fuse_opt_add_arg(&arguments, "-o") == 0 &&
      fuse_opt_add_arg(&arguments, options_for_fuse(plan).c_str()) == 0) {
    const fuse_lowlevel_ops& operations = FileSystem::operations();
    session = fuse_session_new(&arguments, &operations, sizeof operations, &file_system);
  }
  fuse_opt_free_args(&arguments);
  return session;
}

// True if the kernel has been told to drop the connection. /sys/fs/fuse may not be mounted.
bool abort_connection(DeviceNumber device) {
  const std::string path = "/sys/fs/fuse/connections/" + std::to_string(device.minor) + "/abort";
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool written = ::write(fd, "1", 1) == 1;
  ::close(fd);
  return written;
}

void do_nothing(int) {}

// What abort() interrupts the loop's wait with.
void let_wake_up() {
  struct sigaction action {};
  action.sa_handler = do_nothing;
  ::sigaction(SIGUSR2, &action, nullptr);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  ::pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace

Result<std::unique_ptr<Session>> Session::mount(const MountPlan& plan, FileSystem& file_system) {
  fuse_set_log_func(log_for_fuse);
  std::unique_ptr<Session> session(new Session(plan.mountpoint, file_system));
  session->fuse_ = make_fuse_session(plan, file_system);
  if (session->fuse_ == nullptr) return fail(EIO, "cannot make a FUSE session: " + why());
  if (fuse_session_mount(session->fuse_, plan.mountpoint.c_str()) != 0) {
    session->detached_ = true;
    return fail(EIO, "cannot mount on " + plan.mountpoint + ": " + why());
  }
  VALFS_ASSIGN(session->channel_,
               Channel::attach(session->fuse_, plan.options.transport,
                               {[&](uint32_t opcode, uint64_t inode, size_t bytes) {
                                  return file_system.may_block(opcode, inode, bytes);
                                },
                                [&self = *session] { self.abort(); }}));
  file_system.set_session(session->fuse_, session->channel_.get());
  VALFS_ASSIGN(const MountTable table, MountTable::read());
  const MountEntry* entry = table.find(plan.mountpoint);
  if (entry == nullptr || !entry->is_valfs())
    return fail(EIO, "the mount on " + plan.mountpoint + " has vanished");
  session->device_ = entry->device;
  session->server_ = ::pthread_self();
  return session;
}

Session::~Session() {
  if (fuse_ == nullptr) return;
  if (channel_) channel_->stop();
  file_system_.set_session(nullptr, channel_.get());
  // After a detach another mount may be there by now, and libfuse would take that one.
  if (!detached_) fuse_session_unmount(fuse_);
  fuse_session_destroy(fuse_);
}

Status Session::serve() {
  let_wake_up();
  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(config, 0);
  fuse_loop_cfg_set_max_threads(config, kThreads);
  fuse_loop_cfg_set_idle_threads(config, kThreads);
  const int outcome = fuse_session_loop_mt(fuse_, config);
  fuse_loop_cfg_destroy(config);
  {
    const std::lock_guard lock(mutex_);
    served_ = true;
  }
  changed_.notify_all();
  channel_->stop();
  // -EINTR: abort() has woken the loop.
  if (outcome < 0 && outcome != -EINTR)
    return fail(-outcome, "serving " + mountpoint_ + " failed: " + std::strerror(-outcome));
  return {};
}

Status Session::detach() {
  VALFS_ASSIGN(const MountTable table, MountTable::read());
  // It may have been moved, or bound to more places.
  for (const MountEntry& entry : table.entries()) {
    if (entry.device != device_) continue;
    if (table.find(entry.mountpoint)->device != device_)
      return fail(EBUSY, "cannot unmount " + entry.mountpoint + ": another mount covers it");
    VALFS_TRY(detach_mount(entry.mountpoint, Detach::kLazily));
  }
  detached_ = true;
  return {};
}

bool Session::wait_until_served(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [this] { return served_; });
}

void Session::abort() {
  if (abort_connection(device_) && wait_until_served(std::chrono::seconds(1))) return;
  // The connection ends when the session is destroyed. The loop looks at the flag after each
  // wake-up, and may just have looked.
  fuse_session_exit(fuse_);
  do {
    ::pthread_kill(server_, SIGUSR2);
  } while (!wait_until_served(kWakePause));
}

}  // namespace valfs::fs
