// Threads for what may block, on one CPU: a wake-up there is cheap (fs/README.md), one on an idle
// CPU is not.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace valfs::fs {

// Keeps the calling thread on a CPU. A CPU that is offline, or out of bounds for this process: it
// stays where it was. Signals are for other threads.
void settle_thread(const char* name, unsigned cpu);

// Thread-safe. Threads appear when they are needed and stay.
class Workers {
 public:
  explicit Workers(unsigned cpu) : cpu_(cpu) {}
  ~Workers() { stop(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  void run(std::function<void()> task);
  // Ends once everything that was asked for is done.
  void stop();

 private:
  static constexpr size_t kMost = 16;

  void work();

  const unsigned cpu_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  bool stopping_ = false;
};

}  // namespace valfs::fs
