// The signals of a mount's process, taken by a thread of their own: SIGTERM and SIGINT ask to stop,
// SIGUSR1 asks for numbers in the log.
#pragma once

#include <functional>
#include <mutex>
#include <thread>

#include "engine/base/status.h"

namespace valfs::fs {

class MountSignals {
 public:
  struct Handlers {
    std::function<void()> stop;
    std::function<void()> report;
  };

  // Blocks the signals; to be called before any thread is started, since threads inherit that.
  // Until handlers are set, a request to stop ends the process at once, as kill -9 would: opening
  // a store may be cut anywhere.
  static Result<std::unique_ptr<MountSignals>> take();
  ~MountSignals();
  MountSignals(const MountSignals&) = delete;
  MountSignals& operator=(const MountSignals&) = delete;

  // Returns once no handler set before runs any more. `{}`: what comes is passed over.
  void set_handlers(Handlers handlers);

 private:
  MountSignals(int signals, int end) : signals_(signals), end_(end) {}
  void run();
  void handle(int signal);

  const int signals_;  // a signalfd
  const int end_;      // an eventfd
  std::mutex mutex_;   // held while a handler runs
  Handlers handlers_;
  std::thread thread_;
};

}  // namespace valfs::fs
