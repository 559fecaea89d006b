#include "engine/storage/kernel_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>
#include <utility>

#include "engine/base/check.h"

namespace valfs::storage {
namespace {

constexpr uint64_t kStatBlock = 512;  // the unit of st_blocks, whatever the file system's

off_t file_offset(uint64_t offset) {
  return static_cast<off_t>(offset);
}

// Calls again what a signal has interrupted.
template <class Call>
auto uninterrupted(Call call) {
  auto outcome = call();
  while (outcome < 0 && errno == EINTR) outcome = call();
  return outcome;
}

// A change, whatever comes of it. Counted at its end, so that no sync before can have covered it;
// its descriptor is in use until then.
class Change {
 public:
  explicit Change(std::atomic<uint64_t>& changes) : changes_(changes) {}
  ~Change() { changes_++; }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;

 private:
  std::atomic<uint64_t>& changes_;
};

}  // namespace

KernelFile::KernelFile(OpenFile file, std::string path, int flags, const OpenFile& directory,
                       DurableWriter& writer, std::shared_ptr<OpenFiles> open_files)
    : path_(std::move(path)),
      flags_(flags),
      directory_(directory),
      writer_(writer),
      open_files_(std::move(open_files)),
      last_used_(open_files_->now()),
      buffered_(std::make_shared<OpenFile>(std::move(file))) {
  open_files_->made(path_, *this);
}

KernelFile::~KernelFile() {
  open_files_->gone(path_, *this);
}

// While the caller has it, the file stays open.
Result<KernelFile::Descriptor> KernelFile::descriptor() {
  Descriptor opened;
  {
    const std::lock_guard guard(mutex_);
    last_used_.store(open_files_->now(), std::memory_order_relaxed);
    if (buffered_) return buffered_;
    VALFS_TRY(open_again());
    opened = buffered_;
  }
  open_files_->reopened(*this);
  return opened;
}

Status KernelFile::open_again() {
  VALFS_ASSIGN(OpenFile file, open_at(directory_, path_, flags_));
  buffered_ = std::make_shared<OpenFile>(std::move(file));
  return {};
}

bool KernelFile::close_if_idle() {
  const std::lock_guard guard(mutex_);
  if (!buffered_) return true;
  const long own = direct_ == buffered_ ? 2 : 1;
  const bool idle = buffered_.use_count() == own && direct_.use_count() <= own;
  if (!idle || kept_ || changes_ != synced_) return false;
  direct_.reset();
  buffered_.reset();
  return true;
}

Status KernelFile::keep() {
  const std::lock_guard guard(mutex_);
  if (!buffered_) VALFS_TRY(open_again());
  kept_ = true;
  return {};
}

Result<size_t> KernelFile::read(uint64_t offset, std::span<std::byte> into) {
  VALFS_ASSIGN(const Descriptor file, descriptor());
  size_t count = 0;
  while (count < into.size()) {
    const auto rest = into.subspan(count);
    const ssize_t outcome = uninterrupted(
        [&] { return ::pread(file->fd(), rest.data(), rest.size(), file_offset(offset + count)); });
    if (outcome < 0) return system_failure(errno, "read", file->path());
    if (outcome == 0) break;  // the end of the file
    count += static_cast<size_t>(outcome);
  }
  return count;
}

// Out of the page cache. Less than asked for may be the end of the file, or of what is cached: then
// whoever may wait has to find out.
Result<size_t> KernelFile::read_at_once(uint64_t offset, std::span<std::byte> into) {
  VALFS_ASSIGN(const Descriptor file, descriptor());
  const iovec part{into.data(), into.size()};
  const ssize_t got = ::preadv2(file->fd(), &part, 1, file_offset(offset), RWF_NOWAIT);
  if (got < 0 || static_cast<size_t>(got) < into.size()) return fail(EAGAIN, "");
  return into.size();
}

Status KernelFile::write(uint64_t offset, std::span<const std::byte> from) {
  VALFS_ASSIGN(const Descriptor file, descriptor());
  const Change change(changes_);
  size_t count = 0;
  while (count < from.size()) {
    const auto rest = from.subspan(count);
    const ssize_t outcome = uninterrupted([&] {
      return ::pwrite(file->fd(), rest.data(), rest.size(), file_offset(offset + count));
    });
    if (outcome <= 0)  // nothing written and no reason given: trying again could go on for ever
      return system_failure(outcome < 0 ? errno : EIO, "write to", file->path());
    count += static_cast<size_t>(outcome);
  }
  return {};
}

DurableWrite KernelFile::durable_write(uint64_t offset, std::span<const std::byte> from,
                                       Completion done) {
  VALFS_CHECK(offset % kBlockSize == 0 && from.size() % kBlockSize == 0);
  VALFS_CHECK(reinterpret_cast<uintptr_t>(from.data()) % kBlockSize == 0);
  int error = 0;
  auto file = direct();
  if (!file) {  // the completion is called as ever, with this error
    error = file.error().code;
    file = std::make_shared<OpenFile>(-1, directory_.path() + "/" + path_);
  }
  return {std::move(*file), offset, from, std::move(done), error};
}

void KernelFile::write_durably(uint64_t offset, std::span<const std::byte> from, Completion done) {
  writer_.start(durable_write(offset, from, std::move(done)));
}

void KernelFile::write_durably_here(uint64_t offset, std::span<const std::byte> from,
                                    Completion done) {
  DurableWrite write = durable_write(offset, from, std::move(done));
  while (!write.over()) write.advance(write_durably_once(write));
  write.finish();
}

// The descriptor for durable writes.
Result<KernelFile::Descriptor> KernelFile::direct() {
  VALFS_ASSIGN(const Descriptor file, descriptor());
  const std::lock_guard guard(mutex_);
  if (direct_) return direct_;
  // Not by the path: the file may have been renamed or removed since.
  const std::string self = "/proc/self/fd/" + std::to_string(file->fd());
  const int access = ::fcntl(file->fd(), F_GETFL) & O_ACCMODE;
  const int fd = ::open(self.c_str(), access | O_DIRECT | O_CLOEXEC);
  if (fd >= 0) {
    direct_ = std::make_shared<OpenFile>(fd, file->path());
  } else if (errno == EINVAL || errno == EOPNOTSUPP) {
    direct_ = file;  // this file system has no direct I/O; RWF_DSYNC works all the same
  } else {
    return system_failure(errno, "open", file->path());
  }
  return direct_;
}

Status KernelFile::sync() {
  VALFS_ASSIGN(const Descriptor file, descriptor());
  const uint64_t changes = changes_;
  // Not even EINTR is tried again: see storage.h.
  if (::fdatasync(file->fd()) != 0) return system_failure(errno, "sync", file->path());
  synced_ = changes;
  return {};
}

Status KernelFile::resize(uint64_t size) {
  VALFS_ASSIGN(const Descriptor file, descriptor());
  const Change change(changes_);
  if (uninterrupted([&] { return ::ftruncate(file->fd(), file_offset(size)); }) != 0)
    return system_failure(errno, "resize", file->path());
  return {};
}

Status KernelFile::reserve(uint64_t size) {
  VALFS_ASSIGN(const Descriptor file, descriptor());
  const Change change(changes_);
  if (uninterrupted([&] { return ::fallocate(file->fd(), 0, 0, file_offset(size)); }) != 0)
    return system_failure(errno, "reserve space for", file->path());
  return {};
}

Status KernelFile::punch(uint64_t offset, uint64_t length) {
  if (length == 0) return {};  // which fallocate refuses
  VALFS_ASSIGN(const Descriptor file, descriptor());
  const Change change(changes_);
  const int outcome = uninterrupted([&] {
    return ::fallocate(file->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, file_offset(offset),
                       file_offset(length));
  });
  if (outcome != 0) return system_failure(errno, "punch a hole into", file->path());
  return {};
}

Result<FileInfo> KernelFile::info() {
  VALFS_ASSIGN(const Descriptor file, descriptor());
  struct stat found {};
  if (::fstat(file->fd(), &found) != 0) return system_failure(errno, "stat", file->path());
  return FileInfo{static_cast<uint64_t>(found.st_size),
                  static_cast<uint64_t>(found.st_blocks) * kStatBlock};
}

}  // namespace valfs::storage
