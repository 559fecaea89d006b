// A mount and the connection to the kernel behind it.
#pragma once

#include <fuse_lowlevel.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "engine/base/status.h"
#include "fs/channel/channel.h"
#include "fs/file_system.h"
#include "fs/mount_plan.h"
#include "fs/mount_table.h"

namespace valfs::fs {

class Session {
 public:
  // Mounts. Requests are answered once the same thread runs serve().
  static Result<std::unique_ptr<Session>> mount(const MountPlan& plan, FileSystem& file_system);
  // Unmounts, if that has not happened, and ends the connection.
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Answers requests until the mount is gone: unmounted and no longer in use, or aborted.
  Status serve();

  // The rest may be called from other threads while serve() runs.

  // Takes the mount out of the tree; it is served on until its last user lets go.
  Status detach();
  // False: serve() still runs.
  bool wait_until_served(std::chrono::milliseconds patience);
  // Ends serve(); whoever still uses the mount gets errors.
  void abort();

  DeviceNumber device() const { return device_; }
  const Channel& channel() const { return *channel_; }

 private:
  Session(std::string mountpoint, FileSystem& file_system)
      : mountpoint_(std::move(mountpoint)), file_system_(file_system) {}

  const std::string mountpoint_;
  FileSystem& file_system_;
  fuse_session* fuse_ = nullptr;
  std::unique_ptr<Channel> channel_;
  DeviceNumber device_;
  std::atomic<bool> detached_ = false;
  pthread_t server_{};  // runs serve()

  std::mutex mutex_;
  std::condition_variable changed_;
  bool served_ = false;
};

}  // namespace valfs::fs
