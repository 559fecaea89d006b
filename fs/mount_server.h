// The life of a mount: store, file system, session; open, serve, close.
#pragma once

#include "fs/daemon.h"
#include "fs/mount_plan.h"

namespace valfs::fs {

// Returns once the mount is gone and everything is durable: an ExitStatus.
int serve_mount(const MountPlan& plan, StartReport& report);

}  // namespace valfs::fs
