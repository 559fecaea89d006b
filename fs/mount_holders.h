// Who keeps a mount busy.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "fs/mount_table.h"

namespace valfs::fs {

struct MountHolder {
  pid_t pid = 0;
  std::string command;
  std::string how;  // "open file", "working directory", ...
};

// The processes that have something of the mount's file system open; of those of other users only
// root sees all. Sends no request to the file system, so that its own daemon may ask.
std::vector<MountHolder> find_mount_holders(DeviceNumber device);

// "1234 (bash, working directory), 1240 (less, open file)"; "" for none.
std::string describe(const std::vector<MountHolder>& holders);

}  // namespace valfs::fs
