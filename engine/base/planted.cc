#include "engine/base/planted.h"

#ifdef VALFS_BUG_BANK

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string_view>

namespace valfs {
namespace {

std::optional<Bug> named(std::string_view wanted) {
#define VALFS_BUG(name, what) \
  if (wanted == #name) return Bug::k##name;
#include "engine/base/planted.def"
#undef VALFS_BUG
  return std::nullopt;
}

std::optional<Bug> chosen() {
  const char* name = std::getenv("VALFS_BUG");
  if (name == nullptr || *name == '\0') return std::nullopt;
  const auto bug = named(name);
  if (!bug) {  // else a misspelt one would pass for a bug that nothing finds
    std::fprintf(stderr, "valfs: VALFS_BUG: no bug is called %s\n", name);
    std::exit(2);
  }
  return bug;
}

}  // namespace

bool planted(Bug bug) {
  static const std::optional<Bug> there = chosen();
  return there == bug;
}

}  // namespace valfs

#endif
