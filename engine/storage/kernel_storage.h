// Storage on the machine's own file system.
#pragma once

#include <memory>
#include <string>

#include "engine/base/status.h"
#include "engine/storage/storage.h"

namespace valfs::storage {

struct KernelStorageOptions {
  std::string data_directory;     // must exist
  std::string staging_directory;  // made if missing; "" is `staging` in the data directory
  bool use_ring = true;           // io_uring for durable writes, where the kernel lets us
  unsigned ring_depth = 64;       // durable writes with the kernel at a time
  size_t open_files = 64;         // files open at a time, as far as can be; at least 4
};

// Starts threads, and the ring does not survive a fork: a daemon forks first. Destruction waits
// for the durable writes under way, and so for their completions.
Result<std::unique_ptr<Storage>> open_kernel_storage(const KernelStorageOptions& options);

}  // namespace valfs::storage
