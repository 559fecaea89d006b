// A process that goes on in the background once it has said how starting went.
#pragma once

#include <functional>
#include <string>

namespace valfs::fs {

// As mount(8) defines them.
enum ExitStatus : int {
  kSuccess = 0,
  kWrongCall = 1,  // or no permission
  kSystemError = 2,
  kInterrupted = 8,
  kMountFailed = 32,
};

// "valfs: ..." on stderr.
void complain(const std::string& text);

// How a starting daemon talks to the command that waits for it. In the foreground that is the
// terminal and, where there is one, systemd.
class StartReport {
 public:
  static StartReport to_terminal() { return StartReport(-1); }
  static StartReport to_pipe(int fd) { return StartReport(fd); }
  ~StartReport();
  StartReport(StartReport&& other) noexcept;
  StartReport& operator=(StartReport&&) = delete;

  void notice(const std::string& text);
  // Ends the wait; a daemon lets go of its terminal.
  void ready(const std::string& text);
  void failed(int status, const std::string& text);

 private:
  explicit StartReport(int fd) : fd_(fd) {}
  void send(char kind, const std::string& text);
  void end();

  int fd_;  // -1: foreground, or ended
  bool foreground_ = fd_ < 0;
};

// Runs `body` in a process of its own. Returns twice: in the caller with the status to exit with,
// once `body` has reported; in the daemon with what `body` returned. Called before there are
// threads.
int run_in_background(const std::function<int(StartReport&)>& body);
int run_in_foreground(const std::function<int(StartReport&)>& body);

}  // namespace valfs::fs
