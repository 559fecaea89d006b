// A file descriptor of ours and the path that errors name it by.
#pragma once

#include <unistd.h>

#include <string>
#include <utility>

#include "engine/base/status.h"

namespace valfs::storage {

// Closes its descriptor. The outcome of close() is ignored on purpose: whoever needs to know
// whether bytes arrived has called sync() or written durably.
class OpenFile {
 public:
  OpenFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~OpenFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  OpenFile(OpenFile&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)) {}
  OpenFile& operator=(OpenFile&&) = delete;
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int fd() const { return fd_; }
  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

std::string reason(int code);

// The error `code`: "cannot open /srv/data/wal/1: No such file or directory".
tl::unexpected<Error> system_failure(int code, const char* action, const std::string& path);

// openat(2) with close-on-exec, and never through a symbolic link that the path ends in. What it
// creates is for this user alone. `path` is relative to `directory`; "" is the directory itself.
Result<OpenFile> open_at(const OpenFile& directory, const std::string& path, int flags);

}  // namespace valfs::storage
