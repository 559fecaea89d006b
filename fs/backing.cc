#include "fs/backing.h"

#include <sys/vfs.h>

#include <array>
#include <string_view>

namespace valfs::fs {
namespace {

struct Kind {
  unsigned long magic;  // statfs(2), f_type
  std::string_view name;
  std::string_view weakness;  // empty: none
};

constexpr std::array<Kind, 8> kKinds{{
    {0xef53, "ext4", ""},
    {0x58465342, "XFS", ""},
    {0x01021994, "tmpfs", "nothing survives a restart of the machine"},
    {0x9123683e, "btrfs", "copy-on-write: a full disk may show at fsync, and commits are slower"},
    {0x794c7630, "overlayfs", "durability is that of its upper layer"},
    {0x6969, "NFS", "the lock that keeps other machines out, and durability, are the server's"},
    {0x65735546, "FUSE", "durability is whatever its daemon makes of fsync"},
    {0x2fc12fc1, "ZFS", "copy-on-write: a full disk may show at fsync"},
}};

}  // namespace

std::string weakness_of(const std::string& data) {
  struct statfs found {};
  if (::statfs(data.c_str(), &found) != 0) return {};
  const auto magic = static_cast<unsigned long>(found.f_type) & 0xffffffff;
  for (const Kind& kind : kKinds) {
    if (kind.magic != magic) continue;
    if (kind.weakness.empty()) return {};
    return data + " lies on " + std::string(kind.name) + ": " + std::string(kind.weakness);
  }
  return data +
         " lies on a file system on which valfs has not been tried; ext4 and XFS carry the "
         "whole contract";
}

}  // namespace valfs::fs
