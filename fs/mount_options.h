// The options of a mount: what may follow -o.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/options.h"

namespace valfs::fs {

// How requests come from the kernel: over io_uring, over /dev/fuse, or as it can be had.
enum class Transport { kAuto, kUring, kDev };

struct MountOptions {
  uint64_t size = 0;  // bytes; 0: as much as the disk has
  uint64_t cache = 64 * kMiB;
  uint64_t log_file = 512 * kMiB;
  Compression compression = Compression::kNone;
  Transport transport = Transport::kAuto;
  std::chrono::milliseconds commit{100};
  std::chrono::seconds stop_timeout{10};

  bool is_private = false;           // as asked for; settled into the two below
  bool allow_other = false;          // other users may come in
  bool default_permissions = false;  // the kernel checks modes

  bool nosuid = false;
  bool nodev = false;
  bool noexec = false;
  bool noatime = false;
  bool sync = false;
  bool dirsync = false;

  std::string log;     // "journal", "stderr", or the absolute path of a file; "": as it fits
  std::string fsname;  // "": the data directory
  std::string text;    // as given
};

enum class UnknownOptions { kRefuse, kIgnore };

// `lists` are the arguments of -o. Names are separated by commas; a backslash takes the meaning off
// the character behind it, and so do double quotes for all characters in between; `_` is `-`. Of
// an option given twice the last counts. The rest follows from who mounts: a mount by root is for
// everybody, with the kernel checking permissions; any other one is private.
//
// EINVAL: an unknown option, a bad value, or two that contradict each other; the text names them.
Result<MountOptions> parse_mount_options(const std::vector<std::string>& lists, bool by_root,
                                         UnknownOptions unknown = UnknownOptions::kRefuse);

// One line an option, for --help.
std::string describe_mount_options();

}  // namespace valfs::fs
