// Bugs that can be planted in the engine, to try the tests with: whoever trusts a test suite should
// have seen it find something (tests/README.md, "Bug bank").
//
// They exist only in the build `bugbank`, where the environment variable VALFS_BUG names the one
// that is there. In all others planted() is a constant, and the compiler leaves nothing of them.
#pragma once

namespace valfs {

enum class Bug {
#define VALFS_BUG(name, what) k##name,
#include "engine/base/planted.def"
#undef VALFS_BUG
};

#ifdef VALFS_BUG_BANK
bool planted(Bug bug);
#else
constexpr bool planted(Bug) {
  return false;
}
#endif

}  // namespace valfs
