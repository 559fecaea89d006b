#include "engine/storage/sim_tree.h"

#include <algorithm>
#include <cerrno>
#include <set>

#include "engine/storage/open_file.h"

namespace valfs::storage {
namespace {

constexpr SimTree::Id kNothing = 0;
constexpr SimTree::Id kRoot = 1;

}  // namespace

SimTree::SimTree(size_t sector_size) : sector_size_(sector_size), next_id_(kRoot + 1) {
  nodes_[kRoot].links = 1;
}

void SimTree::apply(Names& names, const Change& change) {
  for (const auto& [name, id] : change) {
    if (id == kNothing) {
      names.erase(name);
    } else {
      names[name] = id;
    }
  }
}

Result<SimTree::Id> SimTree::find(const std::string& path) const {
  Id found = kRoot;
  for (size_t start = 0; start < path.size();) {
    const size_t end = std::min(path.find('/', start), path.size());
    const Node& directory = nodes_.at(found);
    if (directory.content) return system_failure(ENOTDIR, "find", path);
    const auto entry = directory.names.find(path.substr(start, end - start));
    if (entry == directory.names.end()) return system_failure(ENOENT, "find", path);
    found = entry->second;
    start = end + 1;
  }
  return found;
}

Result<SimTree::Id> SimTree::find_file(const std::string& path) const {
  VALFS_ASSIGN(const Id found, find(path));
  if (!nodes_.at(found).content) return system_failure(EISDIR, "open", path);
  return found;
}

Result<SimTree::Id> SimTree::find_directory(const std::string& path) const {
  VALFS_ASSIGN(const Id found, find(path));
  if (nodes_.at(found).content) return system_failure(ENOTDIR, "open", path);
  return found;
}

Result<SimTree::Place> SimTree::place(const std::string& path) const {
  const size_t slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (name.empty()) return system_failure(EINVAL, "name", "\"" + path + "\"");
  const auto directory = find_directory(slash == std::string::npos ? "" : path.substr(0, slash));
  if (!directory) return system_failure(directory.error().code, "find", path);
  return Place{*directory, name};
}

SimTree::Id SimTree::look_up(const Place& place) const {
  const Names& names = nodes_.at(place.directory).names;
  const auto entry = names.find(place.name);
  return entry == names.end() ? kNothing : entry->second;
}

SimTree::Id SimTree::add(const Place& place, std::shared_ptr<SimContent> content) {
  const Id id = next_id_++;
  nodes_[id].content = std::move(content);
  change(place.directory, {{place.name, id}});
  return id;
}

void SimTree::change(Id directory, const Change& change) {
  Node& node = nodes_.at(directory);
  for (const auto& [name, id] : change) {
    const auto before = node.names.find(name);
    if (before != node.names.end()) --nodes_.at(before->second).links;
    if (id != kNothing) ++nodes_.at(id).links;
  }
  apply(node.names, change);
  node.unsynced.push_back(change);
}

Result<SimTree::Id> SimTree::create_file(const std::string& path) {
  VALFS_ASSIGN(const Place where, place(path));
  if (look_up(where) != kNothing) return system_failure(EEXIST, "create", path);
  return add(where, std::make_shared<SimContent>(sector_size_));
}

Status SimTree::make_directory(const std::string& path) {
  VALFS_ASSIGN(const Place where, place(path));
  const Id existing = look_up(where);
  if (existing == kNothing) {
    add(where, nullptr);
  } else if (nodes_.at(existing).content) {
    return system_failure(EEXIST, "make directory", path);
  }
  return {};
}

Status SimTree::remove(const std::string& path) {
  VALFS_ASSIGN(const Place where, place(path));
  const Id target = look_up(where);
  if (target == kNothing) return system_failure(ENOENT, "remove", path);
  if (!nodes_.at(target).names.empty()) return system_failure(ENOTEMPTY, "remove", path);
  change(where.directory, {{where.name, kNothing}});
  return {};
}

Status SimTree::check_replaceable(Id target, bool by_file, const std::string& path) const {
  if (target == kNothing) return {};
  const Node& node = nodes_.at(target);
  const bool is_file = node.content != nullptr;
  if (is_file != by_file) return system_failure(is_file ? ENOTDIR : EISDIR, "replace", path);
  if (!node.names.empty()) return system_failure(ENOTEMPTY, "replace", path);
  return {};
}

Status SimTree::rename(const std::string& from, const std::string& to) {
  VALFS_ASSIGN(const Place source, place(from));
  VALFS_ASSIGN(const Place target, place(to));
  const Id moved = look_up(source);
  if (moved == kNothing) return system_failure(ENOENT, "rename", from);
  const Id replaced = look_up(target);
  if (replaced == moved) return {};
  VALFS_TRY(check_replaceable(replaced, nodes_.at(moved).content != nullptr, to));
  if (source.directory == target.directory) {
    change(source.directory, {{source.name, kNothing}, {target.name, moved}});
  } else {
    change(target.directory, {{target.name, moved}});
    change(source.directory, {{source.name, kNothing}});
  }
  return {};
}

Status SimTree::sync_directory(const std::string& path) {
  VALFS_ASSIGN(const Id id, find_directory(path));
  Node& directory = nodes_.at(id);
  directory.durable_names = directory.names;
  directory.unsynced.clear();
  forget_unreachable();
  return {};
}

Result<std::vector<std::string>> SimTree::list(const std::string& path) const {
  VALFS_ASSIGN(const Id directory, find_directory(path));
  std::vector<std::string> names;
  for (const auto& entry : nodes_.at(directory).names) names.push_back(entry.first);
  return names;
}

SimContent& SimTree::change_content(Id file) {
  std::shared_ptr<SimContent>& content = nodes_.at(file).content;
  if (content.use_count() > 1) content = std::make_shared<SimContent>(*content);
  return *content;
}

uint64_t SimTree::allocated() const {
  uint64_t bytes = 0;
  for (const auto& [id, node] : nodes_) {
    const bool exists = node.links > 0 || node.use.use_count() > 1;
    if (node.content && exists) bytes += node.content->allocated();
  }
  return bytes;
}

std::vector<std::string> SimTree::files() const {
  std::vector<std::string> paths;
  std::vector<std::pair<Id, std::string>> directories{{kRoot, ""}};
  while (!directories.empty()) {
    const auto [directory, prefix] = directories.back();
    directories.pop_back();
    for (const auto& [name, id] : nodes_.at(directory).names) {
      if (nodes_.at(id).content) {
        paths.push_back(prefix + name);
      } else {
        directories.emplace_back(id, prefix + name + "/");
      }
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

Status SimTree::erase(const std::string& path) {
  VALFS_TRY(remove(path));
  VALFS_ASSIGN(const Place where, place(path));
  Node& directory = nodes_.at(where.directory);
  directory.durable_names.erase(where.name);
  for (Change& each : directory.unsynced)
    std::erase_if(each, [&](const auto& entry) { return entry.first == where.name; });
  return {};
}

void SimTree::close_all() {
  for (auto& [id, node] : nodes_) node.use = std::make_shared<int>();
}

SimTree SimTree::after_power_loss(SimRandom& random) const {
  SimTree left(sector_size_);
  left.next_id_ = next_id_;
  std::vector<Id> reached{kRoot};
  std::set<Id> seen{kRoot};
  while (!reached.empty()) {
    const Id id = reached.back();
    reached.pop_back();
    const Node& before = nodes_.at(id);
    Node& after = left.nodes_[id];
    if (before.content) {
      after.content = before.content->all_durable()
                          ? before.content
                          : std::make_shared<SimContent>(before.content->after_power_loss(random));
      continue;
    }
    after.names = before.durable_names;
    const uint64_t survivors = SimFate(random).survivors(before.unsynced.size());
    for (uint64_t i = 0; i < survivors; ++i) apply(after.names, before.unsynced[i]);
    after.durable_names = after.names;
    for (const auto& [name, child] : after.names)
      if (seen.insert(child).second) reached.push_back(child);
  }
  left.count_links();
  return left;
}

void SimTree::count_links() {
  for (auto& [id, node] : nodes_) node.links = id == kRoot ? 1 : 0;
  for (const auto& [id, node] : nodes_)
    for (const auto& [name, child] : node.names) ++nodes_.at(child).links;
}

// Drops what no name leads to any more, not even one that a power loss could bring back.
void SimTree::forget_unreachable() {
  std::set<Id> named{kRoot};
  for (const auto& [id, node] : nodes_) {
    for (const auto& [name, child] : node.names) named.insert(child);
    for (const auto& [name, child] : node.durable_names) named.insert(child);
    for (const Change& each : node.unsynced)
      for (const auto& [name, child] : each) named.insert(child);
  }
  std::erase_if(nodes_, [&](const auto& entry) {
    return !named.contains(entry.first) && entry.second.use.use_count() == 1;
  });
}

}  // namespace valfs::storage
