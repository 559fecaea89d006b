// Inodes whose name is lost: damage has hit their NAME record. They get it back where a record of
// their value remembers it, else a name in `lost+found` (P9: nothing acknowledged is thrown away).
#pragma once

#include <string>
#include <vector>

#include "engine/core.h"
#include "engine/recovery/recovery.h"

namespace valfs::recovery {

// Changes the running log; to be called once at mount, before anybody else uses the store.
Status name_the_nameless(Core& core, const Recovered& recovered, Time now,
                         std::vector<std::string>& warnings);

}  // namespace valfs::recovery
