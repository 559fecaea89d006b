// Staging memory: files, mapped into this process, whose pages the kernel keeps when it dies.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/base/status.h"
#include "engine/storage/storage.h"

namespace valfs::storage {

// On tmpfs or on a disk. What it holds is the users' data: the directory and its files are ours
// alone, and a directory that somebody else could have put there is refused.
class StagingDirectory {
 public:
  explicit StagingDirectory(std::string path) : path_(std::move(path)) {}

  // As in storage.h. A name has no '/'.
  Result<std::unique_ptr<StagingMemory>> make(const std::string& name, uint64_t size) const;
  Result<std::unique_ptr<StagingMemory>> find(const std::string& name) const;
  Status remove(const std::string& name) const;

 private:
  const std::string path_;
};

}  // namespace valfs::storage
