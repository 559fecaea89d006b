#include "engine/log/manifest.h"

#include <algorithm>
#include <cstring>

namespace valfs::log {

std::vector<ManifestEntry> entries_of(std::span<const std::byte> payload) {
  std::vector<ManifestEntry> entries(payload.size() / sizeof(ManifestEntry));
  if (!entries.empty()) {
    std::memcpy(entries.data(), payload.data(), entries.size() * sizeof(ManifestEntry));
  }
  return entries;
}

Manifest::Manifest(GroupSequence group, GroupSequence newest_freed, FileId newest_file,
                   std::span<const std::byte> payload)
    : group_(group),
      newest_freed_(newest_freed),
      newest_file_(newest_file),
      entries_(entries_of(payload)) {}

Manifest::Manifest(GroupSequence newest_freed, FileId newest_file,
                   std::vector<ManifestEntry> entries)
    : newest_freed_(newest_freed), newest_file_(newest_file), entries_(std::move(entries)) {}

const ManifestEntry* Manifest::find(FileId file) const {
  const auto at =
      std::lower_bound(entries_.begin(), entries_.end(), file,
                       [](const ManifestEntry& entry, FileId id) { return entry.file < id; });
  return at == entries_.end() || at->file != file ? nullptr : &*at;
}

std::optional<uint64_t> Manifest::begin_of(FileId file) const {
  const ManifestEntry* entry = find(file);
  if (entry == nullptr) return std::nullopt;
  return entry->begin * kBlock;
}

std::optional<uint64_t> Manifest::end_of(FileId file) const {
  const ManifestEntry* entry = find(file);
  if (entry == nullptr || entry->end == 0) return std::nullopt;
  return entry->end * kBlock;
}

bool Manifest::gone(FileId file) const {
  if (group_ == 0 || find(file) != nullptr) return false;
  if (newest_file_ != 0) return file <= newest_file_;
  // One that was written before manifests had a newest file knows what it lists.
  return !entries_.empty() && file < entries_.back().file;
}

bool Manifest::freed(FileId file, uint64_t end) const {
  if (group_ == 0) return false;
  const ManifestEntry* entry = find(file);
  if (entry != nullptr) return end <= entry->begin * kBlock;
  return newest_file_ == 0 || file <= newest_file_;
}

}  // namespace valfs::log
