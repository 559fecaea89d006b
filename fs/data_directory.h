// A data directory as the tools open it: without mounting it.
#pragma once

#include <memory>
#include <string>

#include "engine/storage/storage.h"

namespace valfs::fs {

// Where the mounts of root keep staging slots; others keep them in the data directory.
inline constexpr const char* kStagingOfRoot = "/run/valfs";

struct DataDirectory {
  std::string path;  // absolute, without symbolic links
  std::unique_ptr<storage::Storage> storage;
};

// ENOTDIR, ENOENT, EACCES with a sentence for the user; EINVAL where `path` is a mounted volume
// instead of the directory that keeps it.
Result<DataDirectory> open_data_directory(const std::string& path);

// The error of a lock that somebody else has, with what to do about it.
Error explain_lock(const Error& error, const std::string& data);

}  // namespace valfs::fs
