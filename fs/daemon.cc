#include "fs/daemon.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>

#include "fs/logging.h"

namespace valfs::fs {
namespace {

// Messages on the pipe: a letter, text, '\n'.
constexpr char kNotice = 'n';
constexpr char kReady = 'r';
constexpr char kFailed = 'f';  // the text begins with the exit status and a space

constexpr int kPatience = 2000;  // ms until the user is told what takes so long

volatile sig_atomic_t interrupted = 0;
void note_interrupt(int) {
  interrupted = 1;
}

void handle(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;  // without SA_RESTART: waiting calls return
  ::sigaction(signal, &action, nullptr);
}

// What both kinds of daemon need.
void set_up_process() {
  handle(SIGHUP, SIG_IGN);
  handle(SIGPIPE, SIG_IGN);
  // For what we make beside the store, such as logs; modes of files in the mount come with
  // requests.
  ::umask(0077);
  if (::chdir("/") != 0) complain("cannot change to /");
  // A core dump would hold what users have stored.
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  // When memory runs out, the kernel must not wait for us to free some; needs CAP_SYS_RESOURCE.
  ::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
}

// What the waiting command knows of its daemon.
class Launch {
 public:
  Launch(pid_t pid, int fd) : pid_(pid), fd_(fd) {}

  int wait() {
    handle(SIGINT, note_interrupt);
    handle(SIGTERM, note_interrupt);
    while (!status_) {
      pollfd waiting{fd_, POLLIN, 0};
      const int ready = ::poll(&waiting, 1, told_ ? -1 : kPatience);
      if (interrupted != 0) return cancel();
      if (ready == 0) {
        complain("this takes a while: replaying the log ...");
        told_ = true;
      } else if (ready > 0 && !receive()) {
        return died();
      }
    }
    // One that has failed still tidies up: who calls next must not find the data in use.
    if (*status_ != kSuccess) wait_for_end();
    return *status_;
  }

 private:
  // False: nothing more will come.
  bool receive() {
    char buffer[4096];
    const ssize_t length = ::read(fd_, buffer, sizeof buffer);
    if (length < 0) return errno == EINTR;
    if (length == 0) return false;
    received_.append(buffer, static_cast<size_t>(length));
    for (size_t end; !status_ && (end = received_.find('\n')) != std::string::npos;
         received_.erase(0, end + 1))
      take(received_.substr(0, end));
    return true;
  }

  void take(const std::string& message) {
    if (message.empty()) return;
    std::string text = message.substr(1);
    switch (message[0]) {
      case kReady:
        std::printf("valfs: %s\n", text.c_str());
        status_ = kSuccess;
        return;
      case kFailed: {
        int status = kMountFailed;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), status);
        if (error == std::errc() && end != text.data() + text.size())
          text.erase(0, static_cast<size_t>(end - text.data()) + 1);
        complain(text);
        status_ = status;
        return;
      }
      default:
        complain(text);
    }
  }

  int cancel() {
    ::kill(pid_, SIGTERM);
    complain("interrupted");
    return kInterrupted;
  }

  int wait_for_end() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR && interrupted == 0) {
    }
    return status;
  }

  int died() {
    const int status = wait_for_end();
    complain("the daemon ended without a word while it was starting" +
             (WIFSIGNALED(status) ? std::string(": ") + strsignal(WTERMSIG(status)) : ""));
    return kMountFailed;
  }

  const pid_t pid_;
  const int fd_;
  std::string received_;
  bool told_ = false;
  std::optional<int> status_;
};

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

void let_go_of_terminal() {
  const int null = ::open("/dev/null", O_RDWR);
  if (null < 0) return;
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null, fd);
  if (null > STDERR_FILENO) ::close(null);
}

// Closes whatever the caller has left open, which may be anything: the end of a pipe, say, that
// somebody reads to its end. Returns the new number of `fd`.
int keep_only(int fd) {
  constexpr int kKept = STDERR_FILENO + 1;
  if (fd != kKept) ::dup2(fd, kKept);
  ::close_range(kKept + 1, ~0U, 0);
  ::fcntl(kKept, F_SETFD, FD_CLOEXEC);
  return kKept;
}

}  // namespace

void complain(const std::string& text) {
  std::fprintf(stderr, "valfs: %s\n", text.c_str());
}

StartReport::~StartReport() {
  end();
}

StartReport::StartReport(StartReport&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), foreground_(other.foreground_) {}

// A command that is gone no longer wants to know; SIGPIPE is ignored.
void StartReport::send(char kind, const std::string& text) {
  if (fd_ < 0) return;
  const std::string message = kind + one_line(text) + "\n";
  size_t sent = 0;
  while (sent < message.size()) {
    const ssize_t written = ::write(fd_, message.data() + sent, message.size() - sent);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    sent += static_cast<size_t>(written);
  }
}

void StartReport::end() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void StartReport::notice(const std::string& text) {
  spdlog::warn("{}", text);
  if (foreground_ && !logs_to_stderr()) complain(text);
  send(kNotice, text);
}

void StartReport::ready(const std::string& text) {
  spdlog::info("{}", text);
  if (foreground_) {
    if (!logs_to_stderr()) complain(text);
    ::sd_notifyf(0, "READY=1\nSTATUS=%s", one_line(text).c_str());
    return;
  }
  let_go_of_terminal();
  send(kReady, text);
  end();
}

void StartReport::failed(int status, const std::string& text) {
  spdlog::error("{}", text);
  if (foreground_) {
    if (!logs_to_stderr()) complain(text);
    ::sd_notifyf(0, "STATUS=%s", one_line(text).c_str());
    return;
  }
  send(kFailed, std::to_string(status) + " " + text);
  end();
}

int run_in_background(const std::function<int(StartReport&)>& body) {
  int pipe[2];
  if (::pipe2(pipe, O_CLOEXEC) != 0) {
    complain(std::string("cannot make a pipe: ") + std::strerror(errno));
    return kSystemError;
  }
  std::fflush(nullptr);
  const pid_t pid = ::fork();
  if (pid < 0) {
    complain(std::string("cannot fork: ") + std::strerror(errno));
    return kSystemError;
  }
  if (pid > 0) {
    ::close(pipe[1]);
    return Launch(pid, pipe[0]).wait();
  }
  ::setsid();
  set_up_process();
  StartReport report = StartReport::to_pipe(keep_only(pipe[1]));
  return body(report);
}

int run_in_foreground(const std::function<int(StartReport&)>& body) {
  set_up_process();
  StartReport report = StartReport::to_terminal();
  return body(report);
}

}  // namespace valfs::fs
