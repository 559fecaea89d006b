// Requests by type, for `stats`. Thread-safe.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

namespace valfs::fs {

enum class Request {
  kLookup,
  kForget,
  kGetattr,
  kSetattr,
  kReadlink,
  kMknod,
  kMkdir,
  kUnlink,
  kRmdir,
  kSymlink,
  kRename,
  kLink,
  kOpen,
  kCreate,
  kRead,
  kWrite,
  kFlush,
  kFsync,
  kOpendir,
  kReaddir,
  kReaddirplus,
  kFsyncdir,
  kStatfs,
  kXattr,
  kFallocate,
  kCount
};

inline constexpr std::array<std::string_view, static_cast<size_t>(Request::kCount)> kRequestNames{
    "lookup",   "forget", "getattr", "setattr",  "readlink", "mknod",   "mkdir",
    "unlink",   "rmdir",  "symlink", "rename",   "link",     "open",    "create",
    "read",     "write",  "flush",   "fsync",    "opendir",  "readdir", "readdirplus",
    "fsyncdir", "statfs", "xattr",   "fallocate"};

class RequestCounts {
 public:
  void add(Request request) {
    counts_[static_cast<size_t>(request)].fetch_add(1, std::memory_order_relaxed);
  }
  uint64_t of(size_t request) const { return counts_[request].load(std::memory_order_relaxed); }

 private:
  std::array<std::atomic<uint64_t>, static_cast<size_t>(Request::kCount)> counts_{};
};

}  // namespace valfs::fs
