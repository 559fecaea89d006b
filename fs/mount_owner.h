// The daemon behind a mount.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>

#include "fs/mount_table.h"

namespace valfs::fs {

// The process that owns a data directory: it holds the lock, which names it. Nothing: nobody does,
// or the directory is not ours to look into.
std::optional<pid_t> owner_of_data(const std::string& data);

// The daemon that serves a mount. One mounted with fsname= tells in its file .valfs/config.
std::optional<pid_t> daemon_of(const MountEntry& mount);

// The daemon is gone, and all that the mount still answers is ENOTCONN or ECONNABORTED.
bool is_dead(const MountEntry& mount);

}  // namespace valfs::fs
