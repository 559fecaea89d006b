#include "engine/storage/directory_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <utility>

namespace valfs::storage {
namespace {

constexpr std::chrono::milliseconds kPatienceWithDead{2000};
constexpr std::chrono::milliseconds kPatienceWithLiving{200};  // a signal may be killing it
constexpr std::chrono::milliseconds kPause{10};

class DirectoryLock final : public Lock {
 public:
  explicit DirectoryLock(OpenFile file) : file_(std::move(file)) {}
  // Said out loud, because closing is not enough: the ring has the file open too.
  ~DirectoryLock() override { ::flock(file_.fd(), LOCK_UN); }

  const OpenFile& file() const { return file_; }

 private:
  OpenFile file_;
};

// Whom the lock file names; nothing where its owner is just writing it.
std::optional<pid_t> read_holder(const OpenFile& file) {
  char text[32];
  const ssize_t length = ::pread(file.fd(), text, sizeof text, 0);
  pid_t pid = 0;
  if (length <= 0 || std::from_chars(text, text + length, pid).ec != std::errc() || pid <= 0)
    return std::nullopt;
  return pid;
}

// The first line of /proc/<pid>/<entry>, or "".
std::string process_entry(pid_t pid, const char* entry) {
  std::string line;
  std::getline(std::ifstream("/proc/" + std::to_string(pid) + "/" + entry), line);
  return line;
}

bool is_alive(pid_t pid) {
  if (::kill(pid, 0) != 0 && errno == ESRCH) return false;
  // Dead but not yet waited for: the state follows the name, which may hold any character but
  // ends at the last ')'.
  const std::string line = process_entry(pid, "stat");
  const size_t end = line.rfind(") ");
  return end == std::string::npos || (line[end + 2] != 'Z' && line[end + 2] != 'X');
}

tl::unexpected<Error> in_use(const OpenFile& directory, std::optional<pid_t> holder) {
  std::string what = directory.path() + " is in use by ";
  if (!holder) return fail(EBUSY, what + "another process");
  what += "process " + std::to_string(*holder);
  const std::string name = process_entry(*holder, "comm");
  if (!name.empty()) what += " (" + name + ")";
  return fail(EBUSY, std::move(what));
}

Status take(const OpenFile& directory, const OpenFile& file) {
  const auto start = std::chrono::steady_clock::now();
  while (::flock(file.fd(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return system_failure(errno, "lock", file.path());
    const std::optional<pid_t> holder = read_holder(file);
    const auto patience = holder && is_alive(*holder) ? kPatienceWithLiving : kPatienceWithDead;
    if (std::chrono::steady_clock::now() - start >= patience) return in_use(directory, holder);
    std::this_thread::sleep_for(kPause);
  }
  return {};
}

Status write_holder(const OpenFile& file) {
  const std::string text = std::to_string(::getpid()) + "\n";
  if (::ftruncate(file.fd(), 0) != 0) return system_failure(errno, "resize", file.path());
  const ssize_t written = ::pwrite(file.fd(), text.data(), text.size(), 0);
  if (written != static_cast<ssize_t>(text.size()))
    return system_failure(written < 0 ? errno : EIO, "write to", file.path());
  return {};
}

class NoLock final : public Lock {};

}  // namespace

Result<std::unique_ptr<Lock>> lock_directory_to_look(const OpenFile& directory) {
  auto file = open_at(directory, "lock", O_RDONLY);
  if (!file && file.error().code == ENOENT) return std::make_unique<NoLock>();
  if (!file) return tl::unexpected(file.error());
  VALFS_TRY(take(directory, *file));
  return std::make_unique<DirectoryLock>(std::move(*file));
}

Result<std::unique_ptr<Lock>> lock_directory(const OpenFile& directory, DurableWriter& writer) {
  VALFS_ASSIGN(OpenFile file, open_at(directory, "lock", O_RDWR | O_CREAT));
  VALFS_TRY(take(directory, file));
  auto lock = std::make_unique<DirectoryLock>(std::move(file));
  VALFS_TRY(write_holder(lock->file()));
  VALFS_TRY(writer.keep_open(lock->file().fd()));
  return lock;
}

}  // namespace valfs::storage
