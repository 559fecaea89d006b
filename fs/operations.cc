// How every request is answered.
#include <spdlog/spdlog.h>

#include "fs/parts.h"

namespace valfs::fs {

Operations::Parts& Operations::parts(fuse_req_t request) {
  return *static_cast<FileSystem*>(fuse_req_userdata(request))->parts_;
}

Operations::Parts& Operations::begin(fuse_req_t request, Request kind) {
  Parts& all = parts(request);
  all.counts.add(kind);
  return all;
}

fuse_entry_param entry_of(const Node& node) {
  fuse_entry_param entry{};
  entry.ino = node.id;
  entry.attr = stat_of(node);
  entry.attr_timeout = entry.entry_timeout = kForever;
  return entry;
}

// Errors that say something about the volume, and not just about the call, go to the log.
void Operations::reply_error(fuse_req_t request, const Error& error) {
  if (error.code == EIO || error.code == ENODATA || error.code == ENOMEM) {
    spdlog::error("{}", error.what);
  } else if (error.code == ENOSPC) {
    spdlog::warn("no space left: {}", error.what);
  }
  fuse_reply_err(request, error.code);
}

void Operations::reply_status(fuse_req_t request, const Status& status) {
  if (status) {
    fuse_reply_err(request, 0);
  } else {
    reply_error(request, status.error());
  }
}

// The node's hold goes to the kernel with the reply, or back.
void Operations::reply_node(fuse_req_t request, const Result<Node>& node) {
  if (!node) return reply_error(request, node.error());
  Parts& all = parts(request);
  const fuse_entry_param entry = entry_of(*node);
  if (fuse_reply_entry(request, &entry) != 0) all.store.release(node->id, 1);
}

void Operations::reply_attributes(fuse_req_t request, const Node& node) {
  const struct stat stat = stat_of(node);
  fuse_reply_attr(request, &stat, kForever);
}

void Operations::reply_virtual(fuse_req_t request, const std::optional<struct stat>& stat,
                               double timeout) {
  if (!stat) {
    fuse_reply_err(request, ENOENT);
    return;
  }
  fuse_entry_param entry{};
  entry.ino = stat->st_ino;
  entry.attr = *stat;
  entry.entry_timeout = entry.attr_timeout = timeout;
  Parts& all = parts(request);
  if (fuse_reply_entry(request, &entry) != 0) all.virtual_files.forget(entry.ino, 1);
}

}  // namespace valfs::fs
