#include "fs/mount_signals.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <utility>

namespace valfs::fs {

Result<std::unique_ptr<MountSignals>> MountSignals::take() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaddset(&set, signal);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  const int signals = ::signalfd(-1, &set, SFD_CLOEXEC);
  if (signals < 0) return fail(errno, "cannot make a signalfd");
  const int end = ::eventfd(0, EFD_CLOEXEC);
  if (end < 0) {
    const int error = errno;
    ::close(signals);
    return fail(error, "cannot make an eventfd");
  }
  std::unique_ptr<MountSignals> taken(new MountSignals(signals, end));
  taken->handlers_.stop = [] { ::_exit(128 + SIGTERM); };
  taken->thread_ = std::thread([&self = *taken] { self.run(); });
  return taken;
}

MountSignals::~MountSignals() {
  ::eventfd_write(end_, 1);
  thread_.join();
  ::close(signals_);
  ::close(end_);
}

void MountSignals::set_handlers(Handlers handlers) {
  const std::lock_guard lock(mutex_);
  handlers_ = std::move(handlers);
}

void MountSignals::run() {
  for (;;) {
    pollfd waiting[] = {{signals_, POLLIN, 0}, {end_, POLLIN, 0}};
    if (::poll(waiting, std::size(waiting), -1) < 0 && errno != EINTR) return;
    if (waiting[1].revents != 0) return;
    signalfd_siginfo info{};
    if (waiting[0].revents != 0 && ::read(signals_, &info, sizeof info) == sizeof info)
      handle(static_cast<int>(info.ssi_signo));
  }
}

void MountSignals::handle(int signal) {
  const std::lock_guard lock(mutex_);
  const auto& handler = signal == SIGUSR1 ? handlers_.report : handlers_.stop;
  if (handler) handler();
}

}  // namespace valfs::fs
