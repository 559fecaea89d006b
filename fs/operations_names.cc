// Requests about names: lookup, forget, mknod, mkdir, symlink, link, unlink, rmdir, rename.
#include <span>
#include <vector>

#include "fs/parts.h"

namespace valfs::fs {
namespace {

Caller caller_of(fuse_req_t request) {
  const fuse_ctx* context = fuse_req_ctx(request);
  return {context->uid, context->gid};
}

// `.valfs` belongs to the mount: nobody can make it, remove it or put something into it.
bool reserved(fuse_ino_t parent, const char* name) {
  return VirtualFiles::is_virtual(parent) ||
         (parent == FUSE_ROOT_ID && name == VirtualFiles::kDirectoryName);
}

void on_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  auto& parts = Operations::begin(request, Request::kLookup);
  if (VirtualFiles::is_virtual(parent)) {
    return Operations::reply_virtual(request, parts.virtual_files.lookup(name), 0);
  }
  if (reserved(parent, name)) {
    return Operations::reply_virtual(request, parts.virtual_files.stat(VirtualFiles::kDirectoryId),
                                     kForever);
  }
  const auto node = parts.names.lookup(parent, name);
  if (node || node.error().code != ENOENT) return Operations::reply_node(request, node);
  // Inode 0 is a "no" that may be cached; ENOENT is one that may not.
  fuse_entry_param none{};
  none.entry_timeout = kForever;
  fuse_reply_entry(request, &none);
}

void on_forget_multi(fuse_req_t request, size_t count, fuse_forget_data* forgets) {
  std::vector<Store::Held> held;
  held.reserve(count);
  for (const fuse_forget_data& forget : std::span(forgets, count)) {
    auto& parts = Operations::begin(request, Request::kForget);
    if (VirtualFiles::is_virtual(forget.ino)) {
      parts.virtual_files.forget(forget.ino, forget.nlookup);
    } else {
      held.push_back({forget.ino, forget.nlookup});
    }
  }
  Operations::parts(request).store.release(held);
  fuse_reply_none(request);
}

void on_forget(fuse_req_t request, fuse_ino_t inode, uint64_t count) {
  fuse_forget_data forget{inode, count};
  on_forget_multi(request, 1, &forget);
}

void on_mknod(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode, dev_t device) {
  auto& parts = Operations::begin(request, Request::kMknod);
  if (reserved(parent, name)) return Operations::reply_error(request, {EACCES, name});
  Operations::reply_node(request,
                         parts.names.make_node(parent, name, mode, device, caller_of(request)));
}

void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode) {
  auto& parts = Operations::begin(request, Request::kMkdir);
  if (reserved(parent, name)) return Operations::reply_error(request, {EEXIST, name});
  Operations::reply_node(request,
                         parts.names.make_directory(parent, name, mode, caller_of(request)));
}

void on_symlink(fuse_req_t request, const char* target, fuse_ino_t parent, const char* name) {
  auto& parts = Operations::begin(request, Request::kSymlink);
  if (reserved(parent, name)) return Operations::reply_error(request, {EACCES, name});
  Operations::reply_node(request,
                         parts.names.make_symlink(parent, name, target, caller_of(request)));
}

void on_link(fuse_req_t request, fuse_ino_t inode, fuse_ino_t parent, const char* name) {
  auto& parts = Operations::begin(request, Request::kLink);
  if (reserved(parent, name) || VirtualFiles::is_virtual(inode)) {
    return Operations::reply_error(request, {EACCES, name});
  }
  Operations::reply_node(request, parts.names.link(inode, parent, name));
}

void on_unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  auto& parts = Operations::begin(request, Request::kUnlink);
  if (reserved(parent, name)) return Operations::reply_error(request, {EACCES, name});
  Operations::reply_status(request, parts.names.unlink(parent, name));
}

void on_rmdir(fuse_req_t request, fuse_ino_t parent, const char* name) {
  auto& parts = Operations::begin(request, Request::kRmdir);
  if (reserved(parent, name)) return Operations::reply_error(request, {EACCES, name});
  Operations::reply_status(request, parts.names.remove_directory(parent, name));
}

void on_rename(fuse_req_t request, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
               const char* new_name, unsigned flags) {
  auto& parts = Operations::begin(request, Request::kRename);
  if (reserved(parent, name) || reserved(new_parent, new_name)) {
    return Operations::reply_error(request, {EACCES, name});
  }
  // Until the answer is there the names stay readable on a ring; elsewhere it is given here.
  const auto rename = [=, &parts] {
    Operations::reply_status(request,
                             parts.names.rename(parent, name, new_parent, new_name, flags));
  };
  // Bytes in bin/ become durable before their new name does (P5).
  const bool large = parts.names.large_value(parent, name) != 0 ||
                     parts.names.large_value(new_parent, new_name) != 0;
  if (large) return Channel::run_blocking(rename);
  rename();
}

}  // namespace

void Operations::add_names(fuse_lowlevel_ops& table) {
  table.lookup = on_lookup;
  table.forget = on_forget;
  table.forget_multi = on_forget_multi;
  table.mknod = on_mknod;
  table.mkdir = on_mkdir;
  table.symlink = on_symlink;
  table.link = on_link;
  table.unlink = on_unlink;
  table.rmdir = on_rmdir;
  table.rename = on_rename;
}

}  // namespace valfs::fs
