#include "engine/storage/durable_writer.h"

#include <cerrno>
#include <utility>

namespace valfs::storage {

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
