#include "fs/file_system.h"

#include <linux/fuse.h>

#include "fs/channel/channel.h"
#include "fs/parts.h"

namespace valfs::fs {
namespace {

constexpr unsigned kBackgroundRequests = 64;

void want(fuse_conn_info* connection, unsigned capability, bool wanted) {
  if (wanted && (connection->capable & capability) != 0) {
    connection->want |= capability;
  } else {
    connection->want &= ~capability;
  }
}

}  // namespace

// What is asked of the kernel; fs/README.md says why.
static void on_init(void* user, fuse_conn_info* connection) {
  want(connection, FUSE_CAP_ASYNC_READ, true);
  want(connection, FUSE_CAP_ASYNC_DIO, true);
  want(connection, FUSE_CAP_PARALLEL_DIROPS, true);
  want(connection, FUSE_CAP_READDIRPLUS, true);
  want(connection, FUSE_CAP_READDIRPLUS_AUTO, false);  // always, not by guess
  want(connection, FUSE_CAP_NO_OPEN_SUPPORT, true);
  want(connection, FUSE_CAP_NO_OPENDIR_SUPPORT, true);
  want(connection, FUSE_CAP_CACHE_SYMLINKS, true);
  want(connection, FUSE_CAP_ATOMIC_O_TRUNC, false);   // without OPEN the truncation would be lost
  want(connection, FUSE_CAP_WRITEBACK_CACHE, false);  // P1
  want(connection, FUSE_CAP_AUTO_INVAL_DATA, false);  // nobody else changes anything
  want(connection, FUSE_CAP_HANDLE_KILLPRIV, false);  // the kernel clears suid and sgid
  want(connection, FUSE_CAP_FLOCK_LOCKS, false);      // locks stay in the kernel
  want(connection, FUSE_CAP_POSIX_LOCKS, false);
  want(connection, FUSE_CAP_SPLICE_READ, false);
  want(connection, FUSE_CAP_SPLICE_WRITE, false);
  want(connection, FUSE_CAP_SPLICE_MOVE, false);
  connection->max_write = FileSystem::kLargestRequest;
  connection->max_readahead = FileSystem::kLargestRequest;
  connection->max_background = kBackgroundRequests;
  connection->time_gran = 1;  // nanosecond
  static_cast<FileSystem*>(user)->ready();
}

FileSystem::FileSystem(Store& store, FileSystemOptions options, std::function<void()> on_ready)
    : parts_(std::make_unique<Parts>(store, std::move(options), std::move(on_ready))) {}

FileSystem::~FileSystem() = default;

void FileSystem::set_session(fuse_session* session, Channel* channel) {
  parts_->session = session;
  parts_->channel = channel;
}

Channel& FileSystem::channel() const {
  return *parts_->channel;
}

bool FileSystem::may_block(uint32_t opcode, uint64_t inode, size_t bytes) const {
  const Store& store = parts_->store;
  switch (opcode) {
    case FUSE_FSYNCDIR:  // flushes all of bin/
      return true;
    case FUSE_WRITE:
    case FUSE_FALLOCATE:
      return store.may_wait(Store::Change::kContent, inode, bytes);
    case FUSE_SETATTR:
      return store.may_wait(Store::Change::kSize, inode, bytes);
    case FUSE_SYMLINK:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_RENAME:
    case FUSE_RENAME2:
    case FUSE_LINK:
      return store.may_wait(Store::Change::kNames, inode, bytes);
    case FUSE_UNLINK:
    case FUSE_RMDIR:
      return store.may_wait(Store::Change::kDelete, inode, bytes);
    default:
      return false;
  }
}

void FileSystem::finish() {
  parts_->virtual_files.finish();
  parts_->store.finish_syncs();
}

void FileSystem::ready() {
  parts_->on_ready();
}

const fuse_lowlevel_ops& FileSystem::operations() {
  static const fuse_lowlevel_ops table = [] {
    fuse_lowlevel_ops operations{};
    operations.init = on_init;
    Operations::add_names(operations);
    Operations::add_attributes(operations);
    Operations::add_content(operations);
    Operations::add_directories(operations);
    return operations;
  }();
  return table;
}

}  // namespace valfs::fs
