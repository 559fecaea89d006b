// Two ways to the same index, compared object by object.
#pragma once

#include <functional>
#include <string>

#include "engine/inspect/check.h"

namespace valfs::inspect {

// Calls `differs` for every inode or name that is not the same in both: attributes, names, and the
// bytes of values. Where a value lies may differ (a record and the cleaner's copy of it), what it
// holds may not. Thread-safe for volumes that nobody changes.
void compare(const DryVolume& one, const DryVolume& other,
             const std::function<void(log::ObjectId, const std::string&)>& differs);

}  // namespace valfs::inspect
