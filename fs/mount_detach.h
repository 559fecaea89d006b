// Taking a mount away: by umount2(2) for root, through fusermount3 for others.
#pragma once

#include <string>

#include "engine/base/status.h"

namespace valfs::fs {

enum class Detach {
  kIfUnused,  // EBUSY if anybody has something of it open
  kLazily,    // out of the tree at once; it ends when the last user lets go
};

// EBUSY, EPERM, EINVAL (not mounted); whatever else umount2() says.
Status detach_mount(const std::string& mountpoint, Detach how);

}  // namespace valfs::fs
