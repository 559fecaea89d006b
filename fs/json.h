// JSON whose members keep their order, as all of it here does: people read it.
#pragma once

#include <nlohmann/json.hpp>

namespace valfs::fs {

using OrderedJson = nlohmann::ordered_json;

}  // namespace valfs::fs
