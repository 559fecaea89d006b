// Storage: the only place of the engine that touches files.
//
// Three implementations: io_uring (kernel_storage.h), preadv2/pwritev2 where io_uring is refused
// (the same class, without a ring), and a simulated disk that loses and tears what was not synced
// (sim_disk.h). A path is relative to the data directory; '/' separates, no leading '/'.
//
// Words. "With the kernel": survives kill -9 of this process, not power loss. "Durable": survives
// power loss. A file's bytes are durable after sync() or a durable write; its *name* is durable
// only after sync_directory() of the directory that holds it.
//
// Thread-safety: every method of Storage and File may be called from any thread, unless it says
// otherwise. A File may be used as long as the Storage that opened it lives. An error's text names
// the file. EIO is an error and never means "end of file".
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/base/status.h"

namespace valfs::storage {

// The unit of durable writes: the largest sector of today's disks, and the page size.
inline constexpr uint64_t kBlockSize = 4096;

enum class OpenMode {
  kRead,       // must exist
  kReadWrite,  // must exist
  kCreate,     // must not exist (EEXIST); read and write
};

struct FileInfo {
  uint64_t size = 0;       // bytes
  uint64_t allocated = 0;  // bytes that the file takes on the disk
};

struct Space {
  uint64_t total = 0;      // bytes of the file system that holds the data directory
  uint64_t available = 0;  // bytes of it that this process may still write
};

class File {
 public:
  // Called once with the outcome, on a thread of the storage (or, on the simulated disk, inside
  // Storage::wait or SimDisk::step), never inside the call that started the operation.
  using Completion = std::function<void(Status)>;

  virtual ~File() = default;
  File() = default;
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  // Reads from `offset` on. Returns the count of bytes read, which is less than asked for only
  // where the file ends. Any alignment.
  virtual Result<size_t> read(uint64_t offset, std::span<std::byte> into) = 0;

  // The same without waiting for the disk: EAGAIN if it would have to.
  virtual Result<size_t> read_at_once(uint64_t offset, std::span<std::byte> into) {
    (void)offset, (void)into;
    return fail(EAGAIN, "");
  }

  // Writes all of `from`, or fails. Afterwards the bytes are with the kernel. Any alignment.
  virtual Status write(uint64_t offset, std::span<const std::byte> from) = 0;

  // Starts a write that is durable when `done` is called without error (where the file already has
  // blocks there, O_DIRECT with RWF_DSYNC: one flush, no file system metadata). `offset` and size
  // are multiples of kBlockSize and `from` is aligned to it; `from` must stay as it is until then.
  // Several may be under way; they may complete in any order.
  virtual void write_durably(uint64_t offset, std::span<const std::byte> from, Completion done) = 0;
  // The same, by the calling thread where the storage can: `done` has then been called on it when
  // this returns. For whoever has nothing to do but wait: no other thread has to wake up.
  virtual void write_durably_here(uint64_t offset, std::span<const std::byte> from,
                                  Completion done) {
    write_durably(offset, from, std::move(done));
  }

  // Makes the file's bytes and size durable (fdatasync). After a failure the bytes written since
  // the last success must be taken for lost: never call it again hoping for the best.
  virtual Status sync() = 0;

  virtual Status resize(uint64_t size) = 0;
  // Makes the file longer, with space for all of it, which reads as zeros. Writing there durably
  // takes a commit of the file system besides. EOPNOTSUPP: this file system cannot.
  virtual Status reserve(uint64_t size) = 0;
  // Gives the space of the range back; it reads as zeros. The size stays.
  virtual Status punch(uint64_t offset, uint64_t length) = 0;
  virtual Result<FileInfo> info() = 0;
};

// Memory that outlives this process, not the machine (promise P1). Zeros when made.
class StagingMemory {
 public:
  virtual ~StagingMemory() = default;
  virtual std::span<std::byte> bytes() = 0;  // aligned to kBlockSize
};

// Held for the life of the object: no other process owns the data directory meanwhile.
class Lock {
 public:
  virtual ~Lock() = default;
};

class Storage {
 public:
  virtual ~Storage() = default;

  virtual Result<std::shared_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  virtual Status make_directory(const std::string& path) = 0;  // exists already: no error
  virtual Status remove(const std::string& path) = 0;          // file or empty directory
  // Replaces `to`, atomically for this process; durable after sync_directory of both parents.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  virtual Status sync_directory(const std::string& path) = 0;  // "" is the data directory
  // Names in a directory, sorted, without "." and "..".
  virtual Result<std::vector<std::string>> list(const std::string& path) = 0;
  virtual Result<Space> space() = 0;

  // Takes the data directory (flock on the file `lock`, which then names this process). EBUSY if
  // another process has it; the text then names that process.
  virtual Result<std::unique_ptr<Lock>> lock() = 0;
  // The same without leaving a trace, for who only looks: the file keeps what it says, and where
  // there is none, none is made (and nothing held: only a mount would make it).
  virtual Result<std::unique_ptr<Lock>> lock_to_look() { return lock(); }

  // Changes with every boot of the machine; the same as long as the page cache lives.
  virtual std::string boot_id() = 0;

  // The staging memory `name` of this volume, made with `size` bytes if it is missing or has
  // another size. All its pages are reserved before this returns (else ENOSPC).
  virtual Result<std::unique_ptr<StagingMemory>> make_staging(const std::string& name,
                                                              uint64_t size) = 0;
  // What make_staging made before, in this boot or (where it lies in the data directory) an earlier
  // one; ENOENT if there is none.
  virtual Result<std::unique_ptr<StagingMemory>> find_staging(const std::string& name) = 0;
  virtual Status remove_staging(const std::string& name) = 0;  // missing: no error

  // Waits until `ready()`, which is called with `lock` held; whoever may make it true notifies
  // `changed`. The simulated disk runs its completions here, with `lock` released.
  virtual void wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
                    const std::function<bool()>& ready) = 0;

  // How many threads may well read at once. 1 where the order of reads matters, as it does on a
  // disk that fails by number.
  virtual size_t readers() const { return 1; }

  // How I/O is done, and why not by io_uring if it is not: "io_uring", "pwritev2 (io_uring: …)".
  virtual std::string description() const = 0;
};

}  // namespace valfs::storage
