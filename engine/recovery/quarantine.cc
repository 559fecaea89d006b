#include "engine/recovery/quarantine.h"

#include <algorithm>

namespace valfs::recovery {

std::string quarantine_path(const std::string& stamp, const std::string& path) {
  std::string name = path;
  std::replace(name.begin(), name.end(), '/', '-');
  return "quarantine/" + stamp + "/" + name;
}

Status make_quarantine(storage::Storage& storage, const std::string& stamp) {
  VALFS_TRY(storage.make_directory("quarantine"));
  VALFS_TRY(storage.make_directory("quarantine/" + stamp));
  VALFS_TRY(storage.sync_directory("quarantine"));
  return storage.sync_directory("");
}

Result<std::string> set_aside(storage::Storage& storage, const std::string& stamp,
                              const std::string& path) {
  VALFS_TRY(make_quarantine(storage, stamp));
  const std::string target = quarantine_path(stamp, path);
  VALFS_TRY(storage.rename(path, target));
  VALFS_TRY(storage.sync_directory("quarantine/" + stamp));
  const size_t slash = path.rfind('/');
  VALFS_TRY(storage.sync_directory(slash == std::string::npos ? "" : path.substr(0, slash)));
  return target;
}

}  // namespace valfs::recovery
