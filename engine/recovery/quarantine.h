// DATA/quarantine/: where files go that have no use, and that nobody may destroy.
#pragma once

#include <string>

#include "engine/storage/storage.h"

namespace valfs::recovery {

// Where `path` lies in a quarantine directory: "quarantine/<stamp>/wal-00-00-00000001".
std::string quarantine_path(const std::string& stamp, const std::string& path);

// The directory above it, durably.
Status make_quarantine(storage::Storage& storage, const std::string& stamp);

// Moves a file there, durably. Returns its new path.
Result<std::string> set_aside(storage::Storage& storage, const std::string& stamp,
                              const std::string& path);

}  // namespace valfs::recovery
