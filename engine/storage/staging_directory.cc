#include "engine/storage/staging_directory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <string>

#include "engine/storage/open_file.h"

namespace valfs::storage {
namespace {

class MappedMemory final : public StagingMemory {
 public:
  explicit MappedMemory(std::span<std::byte> bytes) : bytes_(bytes) {}
  ~MappedMemory() override { ::munmap(bytes_.data(), bytes_.size()); }
  MappedMemory(const MappedMemory&) = delete;
  MappedMemory& operator=(const MappedMemory&) = delete;

  std::span<std::byte> bytes() override { return bytes_; }

 private:
  const std::span<std::byte> bytes_;
};

Status make_directories(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string prefix = path.substr(0, end);
    if (::mkdir(prefix.c_str(), 0700) != 0 && errno != EEXIST)
      return system_failure(errno, "make directory", prefix);
    if (end == std::string::npos) return {};
  }
}

Result<OpenFile> open_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return system_failure(errno, "open staging directory", path);
  OpenFile directory(fd, path);
  struct stat found {};
  if (::fstat(directory.fd(), &found) != 0) return system_failure(errno, "stat", path);
  if (found.st_uid != ::geteuid() || (found.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    return fail(EPERM, "staging directory " + path + " is not ours, or others may write to it");
  return directory;
}

Status check_name(const std::string& name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos)
    return fail(EINVAL, "not a name for staging memory: \"" + name + "\"");
  return {};
}

Result<uint64_t> size_of(const OpenFile& file) {
  struct stat found {};
  if (::fstat(file.fd(), &found) != 0) return system_failure(errno, "stat", file.path());
  if (!S_ISREG(found.st_mode)) return fail(EINVAL, file.path() + " is not a regular file");
  return static_cast<uint64_t>(found.st_size);
}

Result<std::unique_ptr<StagingMemory>> map(const OpenFile& file, uint64_t size) {
  void* address =
      ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file.fd(), 0);
  if (address == MAP_FAILED) return system_failure(errno, "map", file.path());
  return std::make_unique<MappedMemory>(std::span(static_cast<std::byte*>(address), size));
}

// A file of zeros with all its pages reserved, which appears under its name when it is complete:
// being killed on the way leaves nothing that find() would believe.
Result<OpenFile> create(const OpenFile& directory, const std::string& name, uint64_t size) {
  const std::string draft = name + ".new";
  ::unlinkat(directory.fd(), draft.c_str(), 0);  // if one is there and stays, open_at says so
  VALFS_ASSIGN(OpenFile file, open_at(directory, draft, O_RDWR | O_CREAT | O_EXCL));
  int error = ::posix_fallocate(file.fd(), 0, static_cast<off_t>(size));
  if (error == 0 && ::renameat(directory.fd(), draft.c_str(), directory.fd(), name.c_str()) != 0)
    error = errno;
  if (error != 0) {
    ::unlinkat(directory.fd(), draft.c_str(), 0);
    return system_failure(error, "reserve", file.path());
  }
  return file;
}

}  // namespace

Result<std::unique_ptr<StagingMemory>> StagingDirectory::make(const std::string& name,
                                                              uint64_t size) const {
  VALFS_TRY(check_name(name));
  if (size == 0 || size % kBlockSize != 0)
    return fail(EINVAL, "staging memory " + name + " cannot have " + std::to_string(size) +
                            " bytes: not a multiple of " + std::to_string(kBlockSize));
  VALFS_TRY(make_directories(path_));
  VALFS_ASSIGN(const OpenFile directory, open_directory(path_));
  const auto existing = open_at(directory, name, O_RDWR);
  if (existing) {
    VALFS_ASSIGN(const uint64_t existing_size, size_of(*existing));
    if (existing_size == size) return map(*existing, size);
  } else if (existing.error().code != ENOENT) {
    return tl::unexpected<Error>(existing.error());
  }
  VALFS_ASSIGN(const OpenFile created, create(directory, name, size));
  return map(created, size);
}

Result<std::unique_ptr<StagingMemory>> StagingDirectory::find(const std::string& name) const {
  VALFS_TRY(check_name(name));
  VALFS_ASSIGN(const OpenFile directory, open_directory(path_));
  VALFS_ASSIGN(const OpenFile file, open_at(directory, name, O_RDWR));
  VALFS_ASSIGN(const uint64_t size, size_of(file));
  if (size == 0 || size % kBlockSize != 0)
    return fail(EINVAL, file.path() + " has " + std::to_string(size) +
                            " bytes, which staging memory never has");
  return map(file, size);
}

Status StagingDirectory::remove(const std::string& name) const {
  VALFS_TRY(check_name(name));
  const std::string path = path_ + "/" + name;
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return system_failure(errno, "remove", path);
  return {};
}

}  // namespace valfs::storage
