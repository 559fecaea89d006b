// Requests about content: read, write, fsync, fallocate; open, create and flush are not needed.
#include <fcntl.h>
#include <linux/falloc.h>

#include <memory>
#include <vector>

#include "engine/base/buffer.h"
#include "fs/parts.h"

namespace valfs::fs {
namespace {

// A write is placed when it is made, so there is nothing to do at open or close. ENOSYS once, and
// the kernel does without these messages for the life of the mount.
void on_open(fuse_req_t request, fuse_ino_t, fuse_file_info*) {
  Operations::begin(request, Request::kOpen);
  fuse_reply_err(request, ENOSYS);
}

void on_create(fuse_req_t request, fuse_ino_t, const char*, mode_t, fuse_file_info*) {
  Operations::begin(request, Request::kCreate);
  fuse_reply_err(request, ENOSYS);
}

void on_flush(fuse_req_t request, fuse_ino_t, fuse_file_info*) {
  Operations::begin(request, Request::kFlush);
  fuse_reply_err(request, ENOSYS);
}

void reply_read(fuse_req_t request, fuse_ino_t inode, off_t offset, const Buffer& bytes,
                const Result<size_t>& got) {
  if (got) {
    fuse_reply_buf(request, reinterpret_cast<const char*>(bytes.span().data()), *got);
    return;
  }
  Error error = got.error();
  if (error.code == EIO) {
    Operations::parts(request).store.read_index([&](const index::Index& index) {
      error.what = "cannot read " + index.path_of(inode) + " at " + std::to_string(offset) + ": " +
                   error.what;
    });
  }
  Operations::reply_error(request, error);
}

void on_read(fuse_req_t request, fuse_ino_t inode, size_t wanted, off_t offset, fuse_file_info*) {
  auto& parts = Operations::begin(request, Request::kRead);
  if (VirtualFiles::is_virtual(inode)) {
    const std::string text = parts.virtual_files.read(inode, static_cast<uint64_t>(offset), wanted);
    fuse_reply_buf(request, text.data(), text.size());
    return;
  }
  // What memory holds is answered here; what the disk holds, where one may wait for it.
  if (Channel::must_not_block()) {
    Buffer bytes(wanted);
    const auto got = parts.store.read_at_once(inode, static_cast<uint64_t>(offset), bytes.span());
    if (!got) return reply_read(request, inode, offset, bytes, tl::unexpected(got.error()));
    if (*got) return reply_read(request, inode, offset, bytes, **got);
  }
  Channel::run_blocking([request, inode, offset, wanted, &store = parts.store] {
    Buffer bytes(wanted);
    auto got = store.read(inode, static_cast<uint64_t>(offset), bytes.span());
    reply_read(request, inode, offset, bytes, std::move(got));
  });
}

void on_write(fuse_req_t request, fuse_ino_t inode, const char* bytes, size_t count, off_t offset,
              fuse_file_info*) {
  auto& parts = Operations::begin(request, Request::kWrite);
  if (VirtualFiles::is_virtual(inode)) {
    return parts.virtual_files.write(inode, {bytes, count}, [request, count](int error) {
      if (error == 0) {
        fuse_reply_write(request, count);
      } else {
        fuse_reply_err(request, error);
      }
    });
  }
  const auto written = parts.store.write(inode, static_cast<uint64_t>(offset),
                                         std::as_bytes(std::span(bytes, count)), wall_clock());
  if (!written) return Operations::reply_error(request, written.error());
  fuse_reply_write(request, count);
}

void on_fsync(fuse_req_t request, fuse_ino_t inode, int, fuse_file_info*) {
  auto& parts = Operations::begin(request, Request::kFsync);
  if (VirtualFiles::is_virtual(inode)) {
    fuse_reply_err(request, 0);
    return;
  }
  const auto sync = [request, inode, &store = parts.store] {
    store.sync(inode,
               [request](const Status& status) { Operations::reply_status(request, status); });
  };
  // The log answers when it is durable; bytes in bin/ are waited for.
  if (parts.store.is_large(inode)) return Channel::run_blocking(sync);
  sync();
}

void on_fallocate(fuse_req_t request, fuse_ino_t inode, int mode, off_t offset, off_t length,
                  fuse_file_info*) {
  auto& parts = Operations::begin(request, Request::kFallocate);
  if (mode != (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) || VirtualFiles::is_virtual(inode)) {
    fuse_reply_err(request, EOPNOTSUPP);  // space cannot be promised to a file in a log
    return;
  }
  Operations::reply_status(request, parts.store.punch(inode, static_cast<uint64_t>(offset),
                                                      static_cast<uint64_t>(length), wall_clock()));
}

}  // namespace

void Operations::add_content(fuse_lowlevel_ops& table) {
  table.open = on_open;
  table.create = on_create;
  table.flush = on_flush;
  table.read = on_read;
  table.write = on_write;
  table.fsync = on_fsync;
  table.fallocate = on_fallocate;
}

}  // namespace valfs::fs
