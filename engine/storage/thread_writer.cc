#include "engine/storage/thread_writer.h"

#include <utility>

#include "engine/storage/io_thread.h"

namespace valfs::storage {

ThreadWriter::ThreadWriter(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i)
    threads_.push_back(start_io_thread("valfs-write", [this] { run(); }));
}

ThreadWriter::~ThreadWriter() {
  {
    std::lock_guard guard(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadWriter::start(DurableWrite write) {
  {
    std::lock_guard guard(mutex_);
    queue_.push_back(std::move(write));
  }
  changed_.notify_one();
}

Status ThreadWriter::keep_open(int) {
  return {};
}

void ThreadWriter::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    DurableWrite write = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    while (!write.over()) write.advance(write_durably_once(write));
    write.finish();
    write = {};  // a last owner closes the file here, not under the mutex
    lock.lock();
  }
}

}  // namespace valfs::storage
