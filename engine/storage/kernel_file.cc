#include "engine/storage/kernel_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

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

}  // namespace

KernelFile::KernelFile(OpenFile file, DurableWriter& writer)
    : buffered_(std::make_shared<OpenFile>(std::move(file))), writer_(writer) {}

Result<size_t> KernelFile::read(uint64_t offset, std::span<std::byte> into) {
  size_t count = 0;
  while (count < into.size()) {
    const auto rest = into.subspan(count);
    const ssize_t outcome = uninterrupted([&] {
      return ::pread(buffered_->fd(), rest.data(), rest.size(), file_offset(offset + count));
    });
    if (outcome < 0) return system_failure(errno, "read", buffered_->path());
    if (outcome == 0) break;  // the end of the file
    count += static_cast<size_t>(outcome);
  }
  return count;
}

Status KernelFile::write(uint64_t offset, std::span<const std::byte> from) {
  size_t count = 0;
  while (count < from.size()) {
    const auto rest = from.subspan(count);
    const ssize_t outcome = uninterrupted([&] {
      return ::pwrite(buffered_->fd(), rest.data(), rest.size(), file_offset(offset + count));
    });
    if (outcome <= 0)  // nothing written and no reason given: trying again could go on for ever
      return system_failure(outcome < 0 ? errno : EIO, "write to", buffered_->path());
    count += static_cast<size_t>(outcome);
  }
  return {};
}

void KernelFile::write_durably(uint64_t offset, std::span<const std::byte> from, Completion done) {
  VALFS_CHECK(offset % kBlockSize == 0 && from.size() % kBlockSize == 0);
  VALFS_CHECK(reinterpret_cast<uintptr_t>(from.data()) % kBlockSize == 0);
  int error = 0;
  std::shared_ptr<const OpenFile> file = direct(error);
  writer_.start({std::move(file), offset, from, std::move(done), error});
}

// The descriptor for durable writes. On failure sets `error` and returns the buffered one, for its
// name.
std::shared_ptr<const OpenFile> KernelFile::direct(int& error) {
  std::lock_guard guard(mutex_);
  if (direct_) return direct_;
  // Not by the path: the file may have been renamed or removed since.
  const std::string self = "/proc/self/fd/" + std::to_string(buffered_->fd());
  const int access = ::fcntl(buffered_->fd(), F_GETFL) & O_ACCMODE;
  const int fd = ::open(self.c_str(), access | O_DIRECT | O_CLOEXEC);
  if (fd >= 0) {
    direct_ = std::make_shared<OpenFile>(fd, buffered_->path());
  } else if (errno == EINVAL || errno == EOPNOTSUPP) {
    direct_ = buffered_;  // this file system has no direct I/O; RWF_DSYNC works all the same
  } else {
    error = errno;
    return buffered_;
  }
  return direct_;
}

Status KernelFile::sync() {
  // Not even EINTR is tried again: see storage.h.
  if (::fdatasync(buffered_->fd()) != 0) return system_failure(errno, "sync", buffered_->path());
  return {};
}

Status KernelFile::resize(uint64_t size) {
  if (uninterrupted([&] { return ::ftruncate(buffered_->fd(), file_offset(size)); }) != 0)
    return system_failure(errno, "resize", buffered_->path());
  return {};
}

Status KernelFile::punch(uint64_t offset, uint64_t length) {
  if (length == 0) return {};  // which fallocate refuses
  const int outcome = uninterrupted([&] {
    return ::fallocate(buffered_->fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                       file_offset(offset), file_offset(length));
  });
  if (outcome != 0) return system_failure(errno, "punch a hole into", buffered_->path());
  return {};
}

Result<FileInfo> KernelFile::info() {
  struct stat found {};
  if (::fstat(buffered_->fd(), &found) != 0)
    return system_failure(errno, "stat", buffered_->path());
  return FileInfo{static_cast<uint64_t>(found.st_size),
                  static_cast<uint64_t>(found.st_blocks) * kStatBlock};
}

}  // namespace valfs::storage
