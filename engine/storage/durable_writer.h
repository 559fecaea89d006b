// Durable writes under way: what one is, and who carries them out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "engine/base/status.h"
#include "engine/storage/open_file.h"
#include "engine/storage/storage.h"

namespace valfs::storage {

// One write_durably. A system call may do only a part of it: `offset` and `rest` then move on.
struct DurableWrite {
  std::shared_ptr<const OpenFile> file;  // kept open until the write is over
  uint64_t offset = 0;
  std::span<const std::byte> rest;
  File::Completion done;
  int error = 0;  // an errno; set from the start where the write cannot even be tried

  // Nothing is left to be tried.
  bool over() const { return error != 0 || rest.empty(); }
  // Takes the outcome of one system call for `rest`: a count of bytes, or an errno, negated.
  void advance(int64_t outcome);
  // Calls `done`.
  void finish();
};

// One system call for `rest`, by this thread: a count of bytes, or an errno, negated.
int64_t write_durably_once(const DurableWrite& write);

class DurableWriter {
 public:
  virtual ~DurableWriter() = default;  // waits for all that was started
  DurableWriter() = default;
  DurableWriter(const DurableWriter&) = delete;
  DurableWriter& operator=(const DurableWriter&) = delete;

  // Any thread. Writes are taken up in the order of the calls, and complete in any order.
  virtual void start(DurableWrite write) = 0;

  // Keeps the open file of `fd` open until the kernel has dropped the last write of this process,
  // be it killed. Replaces what an earlier call named.
  virtual Status keep_open(int fd) = 0;
};

}  // namespace valfs::storage
