// The file system below the data directory, and what it does to the contract.
#pragma once

#include <string>

namespace valfs::fs {

// A sentence that says what is weaker on the file system that holds `data`; empty for ext4 and XFS,
// which carry the whole contract.
std::string weakness_of(const std::string& data);

}  // namespace valfs::fs
