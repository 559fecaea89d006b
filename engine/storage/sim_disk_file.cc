// The files of the simulated disk.
#include <cerrno>
#include <cstdint>
#include <utility>

#include "engine/base/check.h"
#include "engine/storage/open_file.h"
#include "engine/storage/sim_disk_internal.h"

namespace valfs::storage {

SimDisk::OpenedFile::OpenedFile(SimDisk& disk, SimTree::Id file, std::string path, bool writable)
    : disk_(disk),
      file_(file),
      use_(disk.tree_.use(file)),
      path_(std::move(path)),
      writable_(writable),
      life_(disk.life_) {}

bool SimDisk::OpenedFile::alive() const {
  return disk_.powered_ && disk_.life_ == life_;
}

int SimDisk::OpenedFile::begin(OperationKind kind, uint64_t offset, uint64_t length) {
  return disk_.life_ == life_ ? disk_.begin(kind, path_, offset, length) : EIO;
}

int SimDisk::OpenedFile::begin_change(OperationKind kind, uint64_t offset, uint64_t length) {
  const int error = begin(kind, offset, length);
  return error == 0 && !writable_ ? EBADF : error;
}

Result<size_t> SimDisk::OpenedFile::read(uint64_t offset, std::span<std::byte> into) {
  const std::lock_guard lock(disk_.reading_);
  const int error = begin(OperationKind::kRead, offset, into.size());
  if (error == SimDisk::kShort)
    into = into.first(disk_.random_.below(into.size() + 1));
  else if (error != 0)
    return system_failure(error, "read", path_);
  return content().read(offset, into);
}

Status SimDisk::OpenedFile::write(uint64_t offset, std::span<const std::byte> from) {
  int error = begin_change(OperationKind::kWrite, offset, from.size());
  if (error == 0 && content().growth(offset, from.size()) > disk_.available()) error = ENOSPC;
  if (error == 0) {
    change_content().write(offset, from);
    return {};
  }
  // What a failed write leaves is anybody's guess, as long as there is room for it.
  const auto some = from.first(disk_.random_.below(from.size() + 1));
  if (alive() && writable_ && content().growth(offset, some.size()) <= disk_.available())
    change_content().write(offset, some);
  return system_failure(error, "write to", path_);
}

void SimDisk::OpenedFile::write_durably(uint64_t offset, std::span<const std::byte> from,
                                        Completion done) {
  VALFS_CHECK(offset % kBlockSize == 0 && from.size() % kBlockSize == 0);
  VALFS_CHECK(reinterpret_cast<uintptr_t>(from.data()) % kBlockSize == 0);
  int error = begin_change(OperationKind::kWriteDurably, offset, from.size());
  uint64_t reserved = error == 0 ? content().growth(offset, from.size()) : 0;
  if (reserved > disk_.available()) {
    error = ENOSPC;
    reserved = 0;
  }
  disk_.in_flight_.push_back(
      {file_, use_, path_, offset, from,
       std::make_shared<const std::vector<std::byte>>(from.begin(), from.end()), std::move(done),
       life_, reserved, error});
}

Status SimDisk::OpenedFile::sync() {
  const int error = begin(OperationKind::kSync);
  if (error == 0) {
    change_content().sync();
    return {};
  }
  if (alive()) change_content().sync_in_vain(disk_.random_);
  return system_failure(error, "sync", path_);
}

Status SimDisk::OpenedFile::resize(uint64_t size) {
  if (int error = begin_change(OperationKind::kResize, size, 0); error != 0)
    return system_failure(error, "resize", path_);
  change_content().resize(size);
  return {};
}

Status SimDisk::OpenedFile::reserve(uint64_t size) {
  int error = begin_change(OperationKind::kReserve, size, 0);
  const uint64_t old = content().size();
  const uint64_t added = size > old ? size - old : 0;
  if (error == 0 && content().growth(old, added) > disk_.available()) error = ENOSPC;
  if (error != 0) return system_failure(error, "reserve space for", path_);
  change_content().write(old, std::vector<std::byte>(added));
  return {};
}

Status SimDisk::OpenedFile::punch(uint64_t offset, uint64_t length) {
  if (int error = begin_change(OperationKind::kPunch, offset, length); error != 0)
    return system_failure(error, "punch a hole into", path_);
  change_content().punch(offset, length);
  return {};
}

Result<FileInfo> SimDisk::OpenedFile::info() {
  const std::lock_guard lock(disk_.reading_);
  if (int error = begin(OperationKind::kInfo); error != 0)
    return system_failure(error, "stat", path_);
  return FileInfo{content().size(), content().allocated()};
}

}  // namespace valfs::storage
