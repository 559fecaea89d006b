#include "engine/storage/thread_writer.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "engine/storage/io_thread.h"

namespace valfs::storage {
namespace {

int64_t write_and_flush(const DurableWrite& write) {
  const ssize_t written = ::pwrite(write.file->fd(), write.rest.data(), write.rest.size(),
                                   static_cast<off_t>(write.offset));
  if (written < 0 || ::fdatasync(write.file->fd()) != 0) return -errno;
  return written;
}

// A count of bytes, or an errno, negated.
int64_t write_once(const DurableWrite& write) {
  const iovec range{const_cast<std::byte*>(write.rest.data()), write.rest.size()};
  const ssize_t written =
      ::pwritev2(write.file->fd(), &range, 1, static_cast<off_t>(write.offset), RWF_DSYNC);
  if (written >= 0) return written;
  if (errno == EOPNOTSUPP || errno == ENOSYS) return write_and_flush(write);
  return -errno;
}

}  // namespace

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
    while (!write.over()) write.advance(write_once(write));
    write.finish();
    write = {};  // a last owner closes the file here, not under the mutex
    lock.lock();
  }
}

}  // namespace valfs::storage
