// Durable writes by threads and pwritev2, for where io_uring is refused.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/storage/durable_writer.h"

namespace valfs::storage {

class ThreadWriter final : public DurableWriter {
 public:
  explicit ThreadWriter(unsigned threads);
  ~ThreadWriter() override;

  void start(DurableWrite write) override;
  // Nothing to do: the kernel closes a killed process's files once its last thread has left the
  // write that it was in.
  Status keep_open(int fd) override;

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<DurableWrite> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace valfs::storage
