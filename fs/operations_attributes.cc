// Requests about attributes: getattr, setattr, readlink, statfs; xattrs are not offered.
#include <sys/statvfs.h>

#include <array>
#include <climits>

#include "fs/parts.h"

namespace valfs::fs {
namespace {

Time time_of(const timespec& time) {
  return {time.tv_sec, static_cast<uint32_t>(time.tv_nsec)};
}

void on_getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
  auto& parts = Operations::begin(request, Request::kGetattr);
  if (VirtualFiles::is_virtual(inode)) {
    const auto stat = parts.virtual_files.stat(inode);
    if (stat) {
      fuse_reply_attr(request, &*stat, 0);
    } else {
      fuse_reply_err(request, ENOENT);
    }
    return;
  }
  const auto node = parts.names.stat(inode);
  if (!node) return Operations::reply_error(request, node.error());
  Operations::reply_attributes(request, *node);
}

AttributeChange change_of(const struct stat& wanted, int which) {
  AttributeChange change;
  const Time now = wall_clock();
  if ((which & FUSE_SET_ATTR_MODE) != 0) change.mode = wanted.st_mode;
  if ((which & FUSE_SET_ATTR_UID) != 0) change.uid = wanted.st_uid;
  if ((which & FUSE_SET_ATTR_GID) != 0) change.gid = wanted.st_gid;
  if ((which & FUSE_SET_ATTR_SIZE) != 0) change.size = static_cast<uint64_t>(wanted.st_size);
  if ((which & FUSE_SET_ATTR_ATIME) != 0) change.accessed = time_of(wanted.st_atim);
  if ((which & FUSE_SET_ATTR_MTIME) != 0) change.modified = time_of(wanted.st_mtim);
  if ((which & FUSE_SET_ATTR_ATIME_NOW) != 0) change.accessed = now;
  if ((which & FUSE_SET_ATTR_MTIME_NOW) != 0) change.modified = now;
  return change;
}

void on_setattr(fuse_req_t request, fuse_ino_t inode, struct stat* wanted, int which,
                fuse_file_info*) {
  auto& parts = Operations::begin(request, Request::kSetattr);
  if (VirtualFiles::is_virtual(inode)) {
    // The shell's `>` truncates before it writes; there is nothing to cut.
    const auto stat = parts.virtual_files.stat(inode);
    if (stat && (which & ~(FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_MTIME_NOW | FUSE_SET_ATTR_CTIME |
                           FUSE_SET_ATTR_MTIME)) == 0) {
      fuse_reply_attr(request, &*stat, 0);
    } else {
      fuse_reply_err(request, stat ? EPERM : ENOENT);
    }
    return;
  }
  const AttributeChange change = change_of(*wanted, which);
  // Where the kernel does not check, the owner still cannot give a file away.
  const fuse_ctx* context = fuse_req_ctx(request);
  if (!parts.options.check_permissions && context->uid != 0 && change.uid &&
      *change.uid != context->uid) {
    fuse_reply_err(request, EPERM);
    return;
  }
  const auto node = parts.names.change(inode, change);
  if (!node) return Operations::reply_error(request, node.error());
  Operations::reply_attributes(request, *node);
}

void on_readlink(fuse_req_t request, fuse_ino_t inode) {
  auto& parts = Operations::begin(request, Request::kReadlink);
  const auto answer = [request, inode, &parts] {
    const auto target = parts.names.read_link(inode);
    if (!target) return Operations::reply_error(request, target.error());
    fuse_reply_readlink(request, target->c_str());
  };
  if (Channel::must_not_block()) {
    // What can be read at once is in memory afterwards.
    std::array<std::byte, PATH_MAX> target;
    const auto got = parts.store.read_at_once(inode, 0, target);
    if (got && !*got) return Channel::run_blocking(answer);
  }
  answer();
}

void on_statfs(fuse_req_t request, fuse_ino_t) {
  auto& parts = Operations::begin(request, Request::kStatfs);
  constexpr uint64_t kBlock = 4096;
  constexpr uint64_t kBytesAFile = 512;  // an inode and its name, roughly
  const StoreStats stats = parts.store.stats();
  // Free: what the disk (or the cap) still gives, log files that are ready, and the garbage that
  // the cleaner gives back when room is needed (a quarter of what is live may stay garbage).
  const uint64_t tolerated = stats.live_bytes / 4;
  const uint64_t garbage = stats.dead_bytes > tolerated ? stats.dead_bytes - tolerated : 0;
  const uint64_t free = stats.available_bytes + stats.spare_bytes + garbage;
  // One log file is kept for deletes and the cleaner.
  const uint64_t reserve = stats.spare_bytes / 2;
  struct statvfs info {};
  info.f_bsize = info.f_frsize = kBlock;
  info.f_blocks = stats.capacity_bytes / kBlock;
  info.f_bfree = std::min(free, stats.capacity_bytes) / kBlock;
  info.f_bavail = std::min(free > reserve ? free - reserve : 0, stats.capacity_bytes) / kBlock;
  info.f_ffree = info.f_favail = free / kBytesAFile;
  info.f_files = stats.inodes + info.f_ffree;
  info.f_namemax = Namespace::kLongestName;
  fuse_reply_statfs(request, &info);
}

// ENOSYS once: the kernel never asks again.
void refuse_xattr(fuse_req_t request) {
  Operations::begin(request, Request::kXattr);
  fuse_reply_err(request, ENOSYS);
}
void on_getxattr(fuse_req_t request, fuse_ino_t, const char*, size_t) {
  refuse_xattr(request);
}
void on_setxattr(fuse_req_t request, fuse_ino_t, const char*, const char*, size_t, int) {
  refuse_xattr(request);
}
void on_listxattr(fuse_req_t request, fuse_ino_t, size_t) {
  refuse_xattr(request);
}
void on_removexattr(fuse_req_t request, fuse_ino_t, const char*) {
  refuse_xattr(request);
}

}  // namespace

void Operations::add_attributes(fuse_lowlevel_ops& table) {
  table.getattr = on_getattr;
  table.setattr = on_setattr;
  table.readlink = on_readlink;
  table.statfs = on_statfs;
  table.getxattr = on_getxattr;
  table.setxattr = on_setxattr;
  table.listxattr = on_listxattr;
  table.removexattr = on_removexattr;
}

}  // namespace valfs::fs
