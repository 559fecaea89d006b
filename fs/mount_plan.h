// What is to be mounted where, after everything that can be checked beforehand has been.
#pragma once

#include <string>
#include <vector>

#include "engine/base/status.h"
#include "fs/mount_options.h"

namespace valfs::fs {

struct MountPlan {
  std::string data;        // absolute, without symbolic links
  std::string mountpoint;  // the same
  MountOptions options;
  bool by_root = false;
  bool new_volume = false;           // there is none in `data` yet
  std::vector<std::string> notices;  // what was put right or decided on the way

  // What mount(8) shows as the source.
  const std::string& source() const { return options.fsname.empty() ? data : options.fsname; }
};

// Resolves and checks both paths; detaches a dead mount of ours from the mount point; makes the
// data directory if only it is missing. The error's text is for the user: it names the thing, and
// the next step where there is one. EINVAL, EPERM and EACCES blame the call, others the world.
Result<MountPlan> plan_mount(const std::string& data, const std::string& mountpoint,
                             const MountOptions& options);

}  // namespace valfs::fs
