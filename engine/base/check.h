// Assertions that stay in release builds. A broken invariant stops the daemon before it can write
// nonsense: what was acknowledged lies in the staging slots and the log, and outlives the abort.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace valfs {

[[noreturn]] inline void check_failed(const char* what, const char* file, int line) {
  std::fprintf(stderr, "valfs: %s:%d: invariant broken: %s\n", file, line, what);
  std::abort();
}

}  // namespace valfs

#define VALFS_CHECK(condition) \
  ((condition) ? (void)0 : ::valfs::check_failed(#condition, __FILE__, __LINE__))
