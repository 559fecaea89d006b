#include "engine/storage/open_file.h"

#include <fcntl.h>

#include <cerrno>
#include <system_error>

namespace valfs::storage {

std::string reason(int code) {
  return std::generic_category().message(code);
}

tl::unexpected<Error> system_failure(int code, const char* action, const std::string& path) {
  return fail(code, std::string("cannot ") + action + " " + path + ": " + reason(code));
}

Result<OpenFile> open_at(const OpenFile& directory, const std::string& path, int flags) {
  const std::string full = path.empty() ? directory.path() : directory.path() + "/" + path;
  const int fd = ::openat(directory.fd(), path.empty() ? "." : path.c_str(),
                          flags | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return system_failure(errno, (flags & O_CREAT) != 0 ? "create" : "open", full);
  return OpenFile(fd, full);
}

}  // namespace valfs::storage
