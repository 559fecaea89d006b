// Work shared out among the threads that the storage says may well read at once.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

#include "engine/storage/io_thread.h"

namespace valfs::recovery {

// Calls work(0) … work(count − 1), each once, in order of their beginning; returns when all have.
// With one thread, in order and by the caller. `work` must not throw.
template <class Work>
void in_parallel(size_t threads, size_t count, const Work& work) {
  std::atomic<size_t> next{0};
  const auto run = [&] {
    for (size_t i = next++; i < count; i = next++) work(i);
  };
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < std::min(threads, count); i++) {
    helpers.push_back(storage::start_io_thread("valfs-scan", run));
  }
  run();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace valfs::recovery
