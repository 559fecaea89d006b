// Attributes as stat(2) shows them.
#pragma once

#include <sys/stat.h>

#include "engine/index/index.h"

namespace valfs::fs {

// An inode as a reply needs it: taken under the index's lock, used after it.
struct Node {
  log::ObjectId id = 0;
  index::Attributes attributes;
  uint64_t stored = 0;  // bytes on the disk; for blobs to be asked for apart
};

Node node_of(const index::Inode& inode);
struct stat stat_of(const Node& node);

// Now, by the wall clock.
Time wall_clock();

}  // namespace valfs::fs
