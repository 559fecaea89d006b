#include "fs/mount_detach.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>
#include <vector>

namespace valfs::fs {
namespace {

std::string read_all(int fd) {
  std::string text;
  char buffer[512];
  for (;;) {
    const ssize_t length = ::read(fd, buffer, sizeof buffer);
    if (length < 0 && errno == EINTR) continue;
    if (length <= 0) return text;
    text.append(buffer, static_cast<size_t>(length));
  }
}

struct Ended {
  int status = 0;      // as waitpid() gives it
  std::string errors;  // what it wrote to stderr
};

Result<Ended> run(std::vector<std::string> words) {
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) return fail(errno, "cannot make a pipe");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe[1], STDERR_FILENO);
  pid_t pid = 0;
  const int error =
      ::posix_spawnp(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(pipe[1]);
  Ended ended;
  if (error == 0) ended.errors = read_all(pipe[0]);
  ::close(pipe[0]);
  if (error != 0) return fail(error, "cannot run " + words[0] + ": " + std::strerror(error));
  while (::waitpid(pid, &ended.status, 0) < 0 && errno == EINTR) {
  }
  return ended;
}

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

// Its exit status is 1 for every failure; the reason is only in its words.
Status detach_by_helper(const std::string& mountpoint, Detach how) {
  std::vector<std::string> words{"fusermount3", "-u"};
  if (how == Detach::kLazily) words.push_back("-z");
  words.push_back("--");
  words.push_back(mountpoint);
  VALFS_ASSIGN(const Ended ended, run(words));
  if (WIFEXITED(ended.status) && WEXITSTATUS(ended.status) == 0) return {};
  const bool busy = ended.errors.find(std::strerror(EBUSY)) != std::string::npos;
  return fail(busy ? EBUSY : EPERM,
              "cannot unmount " + mountpoint + ": " +
                  (ended.errors.empty() ? "fusermount3 failed" : first_line(ended.errors)));
}

}  // namespace

Status detach_mount(const std::string& mountpoint, Detach how) {
  if (::geteuid() != 0) return detach_by_helper(mountpoint, how);
  const int flags = UMOUNT_NOFOLLOW | (how == Detach::kLazily ? MNT_DETACH : 0);
  if (::umount2(mountpoint.c_str(), flags) == 0) return {};
  const int error = errno;
  return fail(error, "cannot unmount " + mountpoint + ": " + std::strerror(error));
}

}  // namespace valfs::fs
