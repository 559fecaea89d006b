#include "fs/stat_of.h"

#include <ctime>

namespace valfs::fs {
namespace {

constexpr blksize_t kBlockSize = 1 << 20;  // so that cp writes a small file in one request
constexpr off_t kDirectorySize = 4096;

timespec timespec_of(Time time) {
  return {static_cast<time_t>(time.seconds), static_cast<long>(time.nanoseconds)};
}

}  // namespace

Node node_of(const index::Inode& inode) {
  Node node{inode.id, inode.attributes, 0};
  for (const index::Extent& extent : inode.extents().all()) {
    node.stored += extent.own_bytes() + extent.shared_bytes();
  }
  return node;
}

struct stat stat_of(const Node& node) {
  const index::Attributes& attributes = node.attributes;
  struct stat result {};
  result.st_ino = node.id;
  result.st_mode = attributes.mode;
  result.st_nlink = attributes.links;
  result.st_uid = attributes.uid;
  result.st_gid = attributes.gid;
  result.st_rdev = attributes.device;
  result.st_size = S_ISDIR(attributes.mode) ? kDirectorySize : static_cast<off_t>(attributes.size);
  // An inode and its name take about one of these 512 bytes.
  result.st_blocks =
      S_ISDIR(attributes.mode) ? 1 : static_cast<blkcnt_t>((node.stored + 511) / 512);
  result.st_blksize = kBlockSize;
  result.st_atim = timespec_of(attributes.accessed());
  result.st_mtim = timespec_of(attributes.modified());
  result.st_ctim = timespec_of(attributes.changed());
  return result;
}

Time wall_clock() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return {now.tv_sec, static_cast<uint32_t>(now.tv_nsec)};
}

}  // namespace valfs::fs
