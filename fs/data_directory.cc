#include "fs/data_directory.h"

#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

#include "engine/storage/kernel_storage.h"
#include "fs/mount_table.h"

namespace valfs::fs {

Result<DataDirectory> open_data_directory(const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) {
    return fail(errno, path + ": " + std::strerror(errno));
  }
  const auto table = MountTable::read();
  const MountEntry* mount = table ? table->find(resolved) : nullptr;
  if (mount != nullptr && mount->is_valfs()) {
    return fail(EINVAL, path + " is a mounted volume; give its data directory, " + mount->source);
  }
  storage::KernelStorageOptions options;
  options.data_directory = resolved;
  if (::geteuid() == 0) options.staging_directory = kStagingOfRoot;
  DataDirectory directory;
  directory.path = resolved;
  VALFS_ASSIGN(directory.storage, storage::open_kernel_storage(options));
  return directory;
}

Error explain_lock(const Error& error, const std::string& data) {
  if (error.code != EBUSY) return error;
  const auto table = MountTable::read();
  const MountEntry* mount = table ? table->find_source(data) : nullptr;
  std::string text = error.what;
  if (mount != nullptr) {
    text += ", mounted on " + mount->mountpoint + "; unmount it with: valfs umount " +
            mount->mountpoint;
  }
  return {error.code, text};
}

}  // namespace valfs::fs
