// Words for the control file of a mount.
#pragma once

#include <string>

#include "engine/base/status.h"

namespace valfs::fs {

// Writes a word; returns when the daemon has done what it asks for. The error is the daemon's.
// While it runs, a terminal shows the first line of the control file.
Status run_with_progress(const std::string& mountpoint, const std::string& word);
// What the control file says: progress, or what the last command came to.
std::string read_control(const std::string& mountpoint);

}  // namespace valfs::fs
