#include "engine/storage/open_files.h"

#include <algorithm>
#include <vector>

#include "engine/storage/kernel_file.h"

namespace valfs::storage {

void OpenFiles::made(const std::string& path, KernelFile& file) {
  const std::lock_guard lock(mutex_);
  all_.emplace(path, &file);
  add(file);
}

void OpenFiles::gone(const std::string& path, KernelFile& file) {
  const std::lock_guard lock(mutex_);
  open_.erase(&file);
  const auto [begin, end] = all_.equal_range(path);
  const auto found =
      std::find_if(begin, end, [&](const auto& each) { return each.second == &file; });
  if (found != end) all_.erase(found);
}

void OpenFiles::reopened(KernelFile& file) {
  const std::lock_guard lock(mutex_);
  add(file);
}

Status OpenFiles::keep(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const auto [begin, end] = all_.equal_range(path);
  for (auto it = begin; it != end; ++it) {
    VALFS_TRY(it->second->keep());
    open_.insert(it->second);
  }
  return {};
}

void OpenFiles::add(KernelFile& file) {
  now_.fetch_add(1, std::memory_order_relaxed);
  open_.insert(&file);
  if (open_.size() <= limit_) return;
  std::vector<std::pair<uint64_t, KernelFile*>> by_use;
  for (KernelFile* each : open_) {
    if (each != &file) by_use.emplace_back(each->last_used(), each);
  }
  std::sort(by_use.begin(), by_use.end());
  for (const auto& [used, each] : by_use) {
    if (each->close_if_idle()) open_.erase(each);
    if (open_.size() <= limit_) return;
  }
}

}  // namespace valfs::storage
