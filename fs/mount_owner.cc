#include "fs/mount_owner.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <fstream>
#include <iterator>
#include <string>

#include "fs/json.h"

namespace valfs::fs {
namespace {

std::optional<pid_t> read_pid(int fd) {
  char text[32];
  const ssize_t length = ::pread(fd, text, sizeof text, 0);
  pid_t pid = 0;
  if (length <= 0 || std::from_chars(text, text + length, pid).ec != std::errc() || pid <= 0)
    return std::nullopt;
  return pid;
}

// False for a process of which only the exit status is left (proc(5), /proc/[pid]/stat).
bool is_alive(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto name_end = text.rfind(") ");
  if (name_end == std::string::npos || name_end + 2 >= text.size()) return false;
  const char state = text[name_end + 2];
  return state != 'Z' && state != 'X';
}

std::optional<pid_t> pid_in_config(const std::string& mountpoint) {
  std::ifstream file(mountpoint + "/.valfs/config");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto config = OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object() || !config.contains("pid") || !config["pid"].is_number_integer())
    return std::nullopt;
  return config["pid"].get<pid_t>();
}

}  // namespace

std::optional<pid_t> owner_of_data(const std::string& data) {
  const int fd = ::open((data + "/lock").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return std::nullopt;
  std::optional<pid_t> pid;
  // Whoever is named in a file that nobody has locked is gone. The moment that we hold it does not
  // hurt: a starting daemon waits a little.
  if (::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) pid = read_pid(fd);
  ::close(fd);
  // The kernel may keep the lock of a killed daemon until its writes have ended.
  return pid && is_alive(*pid) ? pid : std::nullopt;
}

std::optional<pid_t> daemon_of(const MountEntry& mount) {
  if (const auto pid = owner_of_data(mount.source)) return pid;
  return pid_in_config(mount.mountpoint);
}

bool is_dead(const MountEntry& mount) {
  // Without this, a daemon that lives but hangs would hang us too.
  if (owner_of_data(mount.source)) return false;
  struct statfs found {};
  // The second where its requests went over io_uring.
  return ::statfs(mount.mountpoint.c_str(), &found) != 0 &&
         (errno == ENOTCONN || errno == ECONNABORTED);
}

}  // namespace valfs::fs
