// What is mounted where, as /proc/self/mountinfo tells it.
//
// Nothing here touches a mount: asking one of ours by stat could wait for a daemon that hangs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/status.h"

namespace valfs::fs {

inline constexpr std::string_view kMountType = "fuse.valfs";

struct DeviceNumber {
  unsigned major = 0;
  unsigned minor = 0;
  bool operator==(const DeviceNumber&) const = default;
};

struct MountEntry {
  DeviceNumber device;
  std::string mountpoint;
  std::string type;
  std::string source;  // of ours: the data directory, unless mounted with fsname=

  bool is_valfs() const { return type == kMountType; }
};

class MountTable {
 public:
  // Lines that are not as proc(5) describes them are left out.
  static MountTable parse(std::string_view text);
  // As it is now, for this process.
  static Result<MountTable> read();

  // The topmost mount on exactly this path; nullptr: there is none.
  const MountEntry* find(std::string_view mountpoint) const;
  const MountEntry* find_device(DeviceNumber device) const;
  // A valfs mount of this source.
  const MountEntry* find_source(std::string_view source) const;
  // The valfs mount that `path`, absolute and without symbolic links, lies in.
  const MountEntry* find_around(std::string_view path) const;

  const std::vector<MountEntry>& entries() const { return entries_; }

 private:
  std::vector<MountEntry> entries_;  // in the order in which they were mounted
};

// True for `path` itself too. Both absolute and without symbolic links.
bool lies_in(std::string_view path, std::string_view directory);

}  // namespace valfs::fs
