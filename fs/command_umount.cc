// valfs umount
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

#include "fs/command.h"
#include "fs/mount_detach.h"
#include "fs/mount_holders.h"
#include "fs/mount_owner.h"

extern "C" {  // glibc before 2.37 forgets to say so itself
#include <sys/pidfd.h>
}

namespace valfs::fs {
namespace {

constexpr int kPatience = 10'000;  // ms until the user is told what takes so long

// The daemon of a mount, held so that its pid cannot come to mean another process.
class Daemon {
 public:
  explicit Daemon(std::optional<pid_t> pid) : pid_(pid.value_or(0)) {
    if (pid_ > 0) fd_ = ::pidfd_open(pid_, 0);
  }
  ~Daemon() {
    if (fd_ >= 0) ::close(fd_);
  }
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  bool is_known() const { return fd_ >= 0; }
  pid_t pid() const { return pid_; }

  Status ask_to_stop() {
    if (::pidfd_send_signal(fd_, SIGTERM, nullptr, 0) == 0) return {};
    return fail(errno, "cannot stop the daemon (pid " + std::to_string(pid_) +
                           "): " + std::strerror(errno));
  }

  void wait_until_gone() {
    int patience = kPatience;
    for (;;) {
      pollfd waiting{fd_, POLLIN, 0};
      const int gone = ::poll(&waiting, 1, patience);
      if (gone > 0 || (gone < 0 && errno != EINTR)) return;
      if (gone == 0) {
        complain("waiting for the daemon (pid " + std::to_string(pid_) +
                 ") to write everything ...");
        patience = -1;
      }
    }
  }

 private:
  const pid_t pid_;
  int fd_ = -1;
};

int complain_busy(const MountEntry& mount) {
  const std::string holders = describe(find_mount_holders(mount.device));
  complain(mount.mountpoint + " is busy" +
           (holders.empty() ? "; who uses it cannot be seen from here" : ": in use by " + holders));
  return kMountFailed;
}

int detach_dead(const MountEntry& mount) {
  if (auto detached = detach_mount(mount.mountpoint, Detach::kLazily); !detached)
    return complain(detached.error(), kMountFailed);
  complain("the daemon of " + mount.mountpoint +
           " was gone; the dead mount is detached. The next mount recovers what it had accepted");
  return kSuccess;
}

// As `systemctl stop` does: the daemon detaches the mount, waits stop_timeout, and ends.
int force(const MountEntry& mount, Daemon& daemon) {
  if (!daemon.is_known()) return complain_busy(mount);
  if (auto asked = daemon.ask_to_stop(); !asked) return complain(asked.error(), kMountFailed);
  daemon.wait_until_gone();
  return kSuccess;
}

int unmount(const MountEntry& mount, const UmountCall& call) {
  Daemon daemon(daemon_of(mount));  // before: afterwards .valfs/config cannot be read
  auto detached = detach_mount(mount.mountpoint, call.lazy ? Detach::kLazily : Detach::kIfUnused);
  if (!detached && detached.error().code == EBUSY)
    return call.force ? force(mount, daemon) : complain_busy(mount);
  if (!detached) return complain(detached.error(), kMountFailed);
  if (!daemon.is_known()) {
    complain(mount.mountpoint + " is unmounted, but its daemon is not known: it may still write");
    return kSuccess;
  }
  // Somebody may use a lazily detached mount for days.
  if (call.lazy) return kSuccess;
  daemon.wait_until_gone();
  return kSuccess;
}

}  // namespace

int run_umount(const UmountCall& call) {
  const auto mount = find_valfs_mount(call.mountpoint);
  if (!mount)
    return complain(mount.error(), mount.error().code == EINVAL ? kWrongCall : kMountFailed);
  if (is_dead(*mount)) return detach_dead(*mount);
  return unmount(*mount, call);
}

void add_umount_command(CLI::App& app, Action& chosen) {
  auto call = std::make_shared<UmountCall>();
  CLI::App* command = app.add_subcommand(
      "umount", "Unmount, and wait until everything is durable and the daemon is gone");
  command->add_option("MOUNTPOINT", call->mountpoint, "Where it is mounted")->required();
  command->add_flag("-f,--force", call->force,
                    "If it is in use, wait stop_timeout and then end it under its users; nothing "
                    "that was written is lost");
  command->add_flag("-l,--lazy", call->lazy,
                    "Take it out of the tree now and do not wait; it ends with its last user");
  command->footer(
      "Exit status: 0 unmounted, 1 wrong call or no permission, 32 in use or failed.\n"
      "A mount whose daemon is gone is detached.");
  command->callback([call, &chosen] { chosen = [call] { return run_umount(*call); }; });
}

}  // namespace valfs::fs
