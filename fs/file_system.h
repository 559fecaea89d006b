// The filesystem that a mount serves: libfuse's operations over a Store.
#pragma once

#include <fuse_lowlevel.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "engine/store.h"

namespace valfs::fs {

struct FileSystemOptions {
  bool check_permissions = true;  // the kernel checks modes (default_permissions)
  std::string data_directory;     // for `config` and messages
  std::string mountpoint;
  std::string mount_options;  // as given, for `config`
};

class Channel;

class FileSystem {
 public:
  static constexpr uint32_t kLargestRequest = 1 << 20;  // bytes of one read or write

  // `on_ready` is called once, when the kernel has been answered and the mount serves.
  FileSystem(Store& store, FileSystemOptions options, std::function<void()> on_ready);
  ~FileSystem();

  // To be given to fuse_session_new with `this` as user data.
  static const fuse_lowlevel_ops& operations();

  void ready();  // called by INIT

  // Waits for every request that is still to be answered. Call it when the session has ended and
  // before it is destroyed.
  void finish();

  // For notifications (fuse_lowlevel_notify_*), and what carries requests; set before the session
  // loop starts.
  void set_session(fuse_session* session, Channel* channel);
  Channel& channel() const;
  // Whether a request of that opcode about that inode may have to wait now, for the disk or for the
  // cleaner. What reads finds out by itself.
  bool may_block(uint32_t opcode, uint64_t inode, size_t bytes) const;

 private:
  friend struct Operations;
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace valfs::fs
