// The unit in which values are cached and blobs are summed.
#pragma once

#include <cstdint>

namespace valfs {

inline constexpr uint64_t kValueChunk = 64 * 1024;  // bytes

}  // namespace valfs
