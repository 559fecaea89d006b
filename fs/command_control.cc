// valfs gc, sync, checkpoint, drop-caches: words for the control file of a mount.
#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <thread>

#include "fs/command.h"
#include "fs/command_words.h"

namespace valfs::fs {
namespace {

constexpr std::chrono::milliseconds kProgressPause{500};

std::string control_file(const std::string& mountpoint) {
  return mountpoint + "/.valfs/control";
}

// Returns when the daemon has done what the word asks for.
Status write_word(const std::string& mountpoint, const std::string& word) {
  const std::string path = control_file(mountpoint);
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return fail(errno, path + ": " + std::strerror(errno));
  // One request: the word must not be torn.
  const ssize_t written = ::write(fd, word.data(), word.size());
  const int error = written < 0 ? errno : EIO;
  ::close(fd);
  if (written == static_cast<ssize_t>(word.size())) return {};
  if (error == EBUSY) return fail(error, mountpoint + ": another " + word + " is running");
  return fail(error, mountpoint + ": " + word + " failed: " + std::strerror(error));
}

std::string read_text(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A line on the terminal, rewritten while the control file has news, for as long as this lives.
class ProgressLine {
 public:
  explicit ProgressLine(std::string path) : path_(std::move(path)) {
    if (::isatty(STDERR_FILENO) != 0) thread_ = std::thread([this] { run(); });
  }
  ~ProgressLine() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
    show("");
    std::fputc('\r', stderr);
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kProgressPause, [this] { return over_; })) {
      const std::string text = read_text(path_);
      show(text.substr(0, text.find('\n')));
    }
  }

  void show(const std::string& line) { std::fprintf(stderr, "\r\033[K%s", line.c_str()); }

  const std::string path_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

int run_word(const std::string& path, const std::string& word) {
  const auto mount = find_valfs_mount(path);
  if (!mount) return complain(mount.error(), kWrongCall);
  if (auto done = write_word(mount->mountpoint, word); !done)
    return complain(done.error(), kSystemError);
  return kSuccess;
}

int run_gc(const std::string& path) {
  const auto mount = find_valfs_mount(path);
  if (!mount) return complain(mount.error(), kWrongCall);
  if (auto done = run_with_progress(mount->mountpoint, "gc"); !done) {
    return complain(done.error(), kSystemError);
  }
  std::fputs(read_control(mount->mountpoint).c_str(), stdout);
  return kSuccess;
}

int run_stats(const std::string& path) {
  const auto mount = find_valfs_mount(path);
  if (!mount) return complain(mount.error(), kWrongCall);
  const std::string file = mount->mountpoint + "/.valfs/stats";
  errno = 0;
  const std::string text = read_text(file);
  if (text.empty())
    return complain(
        Error{errno == 0 ? EIO : errno, file + ": " + std::strerror(errno == 0 ? EIO : errno)},
        kSystemError);
  std::fputs(text.c_str(), stdout);
  if (text.back() != '\n') std::fputc('\n', stdout);
  return kSuccess;
}

// A subcommand whose only argument is the mount point.
void add_command(CLI::App& app, Action& chosen, const std::string& name, const std::string& about,
                 std::function<int(const std::string&)> run) {
  auto mountpoint = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(name, about);
  command->add_option("MOUNTPOINT", *mountpoint, "Where it is mounted")->required();
  command->callback([=, &chosen] { chosen = [=] { return run(*mountpoint); }; });
}

}  // namespace

Status run_with_progress(const std::string& mountpoint, const std::string& word) {
  const ProgressLine progress(control_file(mountpoint));
  return write_word(mountpoint, word);
}

std::string read_control(const std::string& mountpoint) {
  return read_text(control_file(mountpoint));
}

void add_control_commands(CLI::App& app, Action& chosen) {
  add_command(app, chosen, "gc", "Collect garbage until little is dead; returns when it is done",
              run_gc);
  const auto add_word = [&](const std::string& name, const std::string& word,
                            const std::string& about) {
    add_command(app, chosen, name, about,
                [word](const std::string& mountpoint) { return run_word(mountpoint, word); });
  };
  add_word("sync", "sync", "Make everything durable, of all files");
  add_word("checkpoint", "checkpoint",
           "Write a checkpoint, so that the next mount need not replay the log");
  add_word("drop-caches", "drop_caches", "Forget the values that are cached in memory");
}

void add_stats_command(CLI::App& app, Action& chosen) {
  add_command(app, chosen, "stats", "Print numbers about the volume, as JSON", run_stats);
}

}  // namespace valfs::fs
