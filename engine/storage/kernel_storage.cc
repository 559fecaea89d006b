#include "engine/storage/kernel_storage.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <string_view>
#include <thread>
#include <utility>

#include "engine/storage/directory_lock.h"
#include "engine/storage/durable_writer.h"
#include "engine/storage/kernel_file.h"
#include "engine/storage/open_file.h"
#include "engine/storage/open_files.h"
#include "engine/storage/staging_directory.h"
#include "engine/storage/thread_writer.h"
#include "engine/storage/uring_writer.h"

namespace valfs::storage {
namespace {

constexpr unsigned kWriterThreads = 4;  // without io_uring

struct Writer {
  std::unique_ptr<DurableWriter> writer;
  std::string description;
};

Writer start_writer(const KernelStorageOptions& options) {
  std::string refusal = "not wanted";
  if (options.use_ring) {
    auto ring = UringWriter::open(options.ring_depth);
    if (ring) return {std::move(*ring), "io_uring"};
    refusal = ring.error().what;
  }
  return {std::make_unique<ThreadWriter>(kWriterThreads), "pwritev2 (io_uring: " + refusal + ")"};
}

class KernelStorage final : public Storage {
 public:
  KernelStorage(OpenFile directory, std::string staging, std::string boot_id, size_t open_files,
                Writer writer)
      : directory_(std::move(directory)),
        open_files_(std::make_shared<OpenFiles>(open_files)),
        staging_(std::move(staging)),
        boot_id_(std::move(boot_id)),
        description_(std::move(writer.description)),
        writer_(std::move(writer.writer)) {}

  Result<std::shared_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Status make_directory(const std::string& path) override;
  Status remove(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status sync_directory(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& path) override;
  Result<Space> space() override;

  Result<std::unique_ptr<Lock>> lock() override { return lock_directory(directory_, *writer_); }
  Result<std::unique_ptr<Lock>> lock_to_look() override {
    return lock_directory_to_look(directory_);
  }
  std::string boot_id() override { return boot_id_; }

  Result<std::unique_ptr<StagingMemory>> make_staging(const std::string& name,
                                                      uint64_t size) override {
    return staging_.make(name, size);
  }
  Result<std::unique_ptr<StagingMemory>> find_staging(const std::string& name) override {
    return staging_.find(name);
  }
  Status remove_staging(const std::string& name) override { return staging_.remove(name); }

  void wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
            const std::function<bool()>& ready) override {
    changed.wait(lock, ready);
  }
  // Reading a log file is as much work for the processor as for the disk.
  size_t readers() const override {
    return std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 8);
  }
  std::string description() const override { return description_; }

 private:
  std::string full(const std::string& path) const;
  Result<OpenFile> open_directory(const std::string& path) const;

  const OpenFile directory_;
  const std::shared_ptr<OpenFiles> open_files_;
  const StagingDirectory staging_;
  const std::string boot_id_;
  const std::string description_;
  const std::unique_ptr<DurableWriter> writer_;  // last: ends first, while all else is there
};

int open_flags(OpenMode mode) {
  switch (mode) {
    case OpenMode::kRead:
      return O_RDONLY;
    case OpenMode::kReadWrite:
      return O_RDWR;
    case OpenMode::kCreate:
      return O_RDWR | O_CREAT | O_EXCL;
  }
  return O_RDONLY;
}

Result<std::shared_ptr<File>> KernelStorage::open(const std::string& path, OpenMode mode) {
  VALFS_ASSIGN(OpenFile file, open_at(directory_, path, open_flags(mode)));
  struct stat found {};
  if (::fstat(file.fd(), &found) != 0) return system_failure(errno, "stat", file.path());
  if (S_ISDIR(found.st_mode)) return system_failure(EISDIR, "open", file.path());
  return std::make_shared<KernelFile>(std::move(file), path, open_flags(mode) & O_ACCMODE,
                                      directory_, *writer_, open_files_);
}

Status KernelStorage::make_directory(const std::string& path) {
  if (::mkdirat(directory_.fd(), path.c_str(), 0700) == 0) return {};
  const int error = errno;
  struct stat found {};
  const bool exists = error == EEXIST &&
                      ::fstatat(directory_.fd(), path.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 &&
                      S_ISDIR(found.st_mode);
  if (!exists) return system_failure(error, "make directory", full(path));
  return {};
}

Status KernelStorage::remove(const std::string& path) {
  VALFS_TRY(open_files_->keep(path));
  if (::unlinkat(directory_.fd(), path.c_str(), 0) == 0) return {};
  if (errno == EISDIR && ::unlinkat(directory_.fd(), path.c_str(), AT_REMOVEDIR) == 0) return {};
  const int error = errno;
  return system_failure(error, "remove", full(path));
}

Status KernelStorage::rename(const std::string& from, const std::string& to) {
  VALFS_TRY(open_files_->keep(from));
  VALFS_TRY(open_files_->keep(to));
  if (::renameat(directory_.fd(), from.c_str(), directory_.fd(), to.c_str()) == 0) return {};
  const int error = errno;
  return system_failure(error, "rename", full(from) + " to " + to);
}

Status KernelStorage::sync_directory(const std::string& path) {
  VALFS_ASSIGN(const OpenFile directory, open_directory(path));
  if (::fsync(directory.fd()) != 0) return system_failure(errno, "sync", directory.path());
  return {};
}

Result<std::vector<std::string>> KernelStorage::list(const std::string& path) {
  VALFS_ASSIGN(const OpenFile directory, open_directory(path));
  const int fd = ::fcntl(directory.fd(), F_DUPFD_CLOEXEC, 0);  // the stream closes its own
  DIR* stream = fd < 0 ? nullptr : ::fdopendir(fd);
  if (stream == nullptr) {
    const int error = errno;
    if (fd >= 0) ::close(fd);
    return system_failure(error, "list", directory.path());
  }
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  const int error = errno;  // readdir() tells an error from the end by it alone
  ::closedir(stream);
  if (error != 0) return system_failure(error, "list", directory.path());
  std::sort(names.begin(), names.end());
  return names;
}

Result<Space> KernelStorage::space() {
  struct statvfs found {};
  if (::fstatvfs(directory_.fd(), &found) != 0)
    return system_failure(errno, "ask for the space of", directory_.path());
  // The file system keeps a reserve that only root may write.
  const auto free_blocks = ::geteuid() == 0 ? found.f_bfree : found.f_bavail;
  return Space{found.f_blocks * found.f_frsize, free_blocks * found.f_frsize};
}

std::string KernelStorage::full(const std::string& path) const {
  return path.empty() ? directory_.path() : directory_.path() + "/" + path;
}

Result<OpenFile> KernelStorage::open_directory(const std::string& path) const {
  return open_at(directory_, path, O_RDONLY | O_DIRECTORY);
}

Result<std::string> read_boot_id() {
  const char* path = "/proc/sys/kernel/random/boot_id";
  std::string id;
  if (!std::getline(std::ifstream(path), id) || id.empty())
    return fail(EIO, std::string("cannot read ") + path);
  return id;
}

}  // namespace

Result<std::unique_ptr<Storage>> open_kernel_storage(const KernelStorageOptions& options) {
  const std::string& path = options.data_directory;
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return system_failure(errno, "open data directory", path);
  OpenFile directory(fd, path);
  VALFS_ASSIGN(std::string boot_id, read_boot_id());
  std::string staging =
      options.staging_directory.empty() ? path + "/staging" : options.staging_directory;
  return std::make_unique<KernelStorage>(std::move(directory), std::move(staging),
                                         std::move(boot_id), options.open_files,
                                         start_writer(options));
}

}  // namespace valfs::storage
