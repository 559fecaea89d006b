#include "engine/storage/durable_writer.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace valfs::storage {
namespace {

int64_t write_and_flush(const DurableWrite& write) {
  const ssize_t written = ::pwrite(write.file->fd(), write.rest.data(), write.rest.size(),
                                   static_cast<off_t>(write.offset));
  if (written < 0 || ::fdatasync(write.file->fd()) != 0) return -errno;
  return written;
}

}  // namespace

int64_t write_durably_once(const DurableWrite& write) {
  const iovec range{const_cast<std::byte*>(write.rest.data()), write.rest.size()};
  const ssize_t written =
      ::pwritev2(write.file->fd(), &range, 1, static_cast<off_t>(write.offset), RWF_DSYNC);
  if (written >= 0) return written;
  if (errno == EOPNOTSUPP || errno == ENOSYS) return write_and_flush(write);
  return -errno;
}

void DurableWrite::advance(int64_t outcome) {
  if (over()) return;
  // ECANCELED: the kernel dropped the request unstarted, because its thread was being interrupted.
  if (outcome == -EINTR || outcome == -EAGAIN || outcome == -ECANCELED) return;
  if (outcome < 0) {
    error = static_cast<int>(-outcome);
    return;
  }
  // Direct I/O goes on at a block's start only: a block written in part is written again.
  const size_t whole = static_cast<size_t>(outcome) / kBlockSize * kBlockSize;
  if (whole == 0) {
    error = EIO;  // trying again could go on for ever
    return;
  }
  offset += whole;
  rest = rest.subspan(whole);
}

void DurableWrite::finish() {
  const File::Completion call = std::move(done);
  if (error != 0) {
    call(system_failure(error, "write durably to", file->path()));
  } else {
    call(Status());
  }
}

}  // namespace valfs::storage
