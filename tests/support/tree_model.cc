#include "tests/support/tree_model.h"

#include <algorithm>
#include <cstdlib>
#include <set>

namespace valfs::test {
namespace {

const char* const kNames[] = {"create", "mkdir",      "write", "truncate",   "punch", "remove",
                              "rename", "link",       "chmod", "sync",       "fsync", "gc",
                              "clean",  "checkpoint", "tick",  "drop caches"};

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

bool is_below(const std::string& path, const std::string& directory) {
  return path.size() > directory.size() && path.compare(0, directory.size(), directory) == 0 &&
         path[directory.size()] == '/';
}

}  // namespace

std::string Action::text() const {
  return std::string(kNames[kind]) + " " + path + (other.empty() ? "" : " -> " + other) + " " +
         std::to_string(offset) + "+" + std::to_string(length);
}

Tree::Tree() {
  nodes_[1] = {true, 0755, 2, nullptr};
}

Tree::Id Tree::find(const std::string& path) const {
  if (path.empty()) return 1;
  const auto found = paths_.find(path);
  return found == paths_.end() ? 0 : found->second;
}

const Tree::Node* Tree::node(Id id) const {
  const auto found = nodes_.find(id);
  return found == nodes_.end() ? nullptr : &found->second;
}

void Tree::drop(const std::string& path) {
  const Id id = find(path);
  paths_.erase(path);
  Node& node = nodes_.at(id);
  if (node.directory) {
    nodes_.at(find(parent_of(path))).links--;
    nodes_.erase(id);
  } else if (--node.links == 0) {
    nodes_.erase(id);
  }
}

void Tree::apply(const Action& action) {
  const Id id = find(action.path);
  const auto change = [&](auto edit) {
    Node& node = nodes_.at(id);
    auto bytes = std::make_shared<Bytes>(*node.bytes);
    edit(*bytes);
    node.bytes = bytes;
  };
  switch (action.kind) {
    case Action::kCreate:
      nodes_[next_] = {false, 0644, 1, std::make_shared<Bytes>()};
      paths_[action.path] = next_++;
      return;
    case Action::kMakeDirectory:
      nodes_[next_] = {true, 0755, 2, nullptr};
      nodes_.at(find(parent_of(action.path))).links++;
      paths_[action.path] = next_++;
      return;
    case Action::kWrite:
      return change([&](Bytes& bytes) {
        const Bytes written = pattern(action.seed, action.length);
        bytes.resize(std::max(bytes.size(), action.offset + written.size()));
        std::copy(written.begin(), written.end(),
                  bytes.begin() + static_cast<ptrdiff_t>(action.offset));
      });
    case Action::kTruncate:
      return change([&](Bytes& bytes) { bytes.resize(action.offset); });
    case Action::kPunch:
      return change([&](Bytes& bytes) {
        const size_t begin = std::min<size_t>(action.offset, bytes.size());
        const size_t end = std::min<size_t>(action.offset + action.length, bytes.size());
        std::fill(bytes.begin() + static_cast<ptrdiff_t>(begin),
                  bytes.begin() + static_cast<ptrdiff_t>(end), std::byte{0});
      });
    case Action::kRemove:
      return drop(action.path);
    case Action::kRename: {
      if (find(action.other) == id) return;
      if (find(action.other) != 0) drop(action.other);
      if (nodes_.at(id).directory) {
        nodes_.at(find(parent_of(action.path))).links--;
        nodes_.at(find(parent_of(action.other))).links++;
      }
      std::map<std::string, Id> moved;
      for (const auto& [path, node] : paths_) {
        if (path == action.path) moved[action.other] = node;
        if (is_below(path, action.path)) {
          moved[action.other + path.substr(action.path.size())] = node;
        }
      }
      std::erase_if(paths_, [&](const auto& entry) {
        return entry.first == action.path || is_below(entry.first, action.path);
      });
      paths_.merge(moved);
      return;
    }
    case Action::kLink:
      paths_[action.other] = id;
      nodes_.at(id).links++;
      return;
    case Action::kChangeMode:
      nodes_.at(id).permissions = static_cast<uint32_t>(action.offset);
      return;
    default:
      return;
  }
}

std::string ActionSource::some_path(const Tree& tree, bool directories) {
  std::vector<std::string> paths;
  if (directories) paths.push_back("");
  for (const auto& [path, id] : tree.paths()) {
    if (tree.node(id)->directory == directories) paths.push_back(path);
  }
  return paths.empty() ? "" : paths[below(paths.size())];
}

std::string ActionSource::new_path(const Tree& tree) {
  const std::string directory = some_path(tree, true);
  std::string name = std::string(1, static_cast<char>('a' + names_ % 26)) + std::to_string(names_);
  if (below(4) == 0) name += std::string(below(200), 'n');
  names_++;
  return directory.empty() ? name : directory + "/" + name;
}

Action ActionSource::next(const Tree& tree) {
  for (;;) {
    Action action = try_next(tree);
    const bool needs_path = action.kind != Action::kSync && action.kind < Action::kGc;
    if (needs_path && action.path.empty() && action.kind != Action::kChangeMode) continue;
    return action;
  }
}

Action ActionSource::try_next(const Tree& tree) {
  const std::string file = some_path(tree, false);
  const uint64_t size = file.empty() ? 0 : tree.node(tree.find(file))->bytes->size();
  const uint64_t seed = random_();
  const auto length = [&]() -> uint64_t {
    const uint64_t kind = below(large_ ? 8 : 6);
    if (kind < 3) return 1 + below(300);
    if (kind < 5) return 1 + below(5000);
    if (kind < 6) return 1 + below(large_ ? 20000 : 9000);
    return 1 + below(40 * 1024);
  };
  switch (below(32)) {
    case 0:
    case 1:
    case 2:
      return {Action::kCreate, tree.paths().size() < 14 ? new_path(tree) : "", "", 0, 0, 0};
    case 3:
      return {Action::kMakeDirectory, tree.paths().size() < 14 ? new_path(tree) : "", "", 0, 0, 0};
    case 4:
    case 5:
    case 6:
    case 7:
      return {Action::kWrite, file, "", size, length(), seed};  // append
    case 8:
    case 9:
      return {Action::kWrite, file, "", below(size + 1), length(), seed};
    case 10:
      return {Action::kWrite, file, "", size + below(3000), length(), seed};
    case 11:
      return {Action::kWrite, file, "", 0, length(), seed};
    case 12:
      return {Action::kTruncate, file, "", 0, 0, 0};
    case 13:
      return {Action::kTruncate, file, "", below(size + 1), 0, 0};
    case 14:
      return {Action::kTruncate, file, "", size + below(10000), 0, 0};
    case 15:
      return {Action::kPunch, file, "", below(size + 1), 1 + below(8000), 0};
    case 16:
    case 17:
      return {Action::kRemove, file, "", 0, 0, 0};
    case 18: {
      const std::string directory = some_path(tree, true);
      const bool empty =
          std::none_of(tree.paths().begin(), tree.paths().end(),
                       [&](const auto& entry) { return is_below(entry.first, directory); });
      return {Action::kRemove, empty ? directory : "", "", 0, 0, 0};
    }
    case 19:
    case 20:
      return {Action::kRename, file, some_path(tree, false), 0, 0, 0};
    case 21:
      return {Action::kRename, file, new_path(tree), 0, 0, 0};
    case 22: {
      const std::string directory = some_path(tree, true);
      const std::string to = new_path(tree);
      return {Action::kRename,
              to == directory || is_below(to, directory) ? "" : directory,
              to,
              0,
              0,
              0};
    }
    case 23:
      return {Action::kLink, tree.paths().size() < 14 ? file : "", new_path(tree), 0, 0, 0};
    case 24:
      return {Action::kChangeMode, file, "", below(0777), 0, 0};
    case 25:
      return {Action::kSync, "", "", 0, 0, 0};
    case 26:
      return {Action::kSyncFile, file, "", 0, 0, 0};
    case 27:
      return {below(2) == 0 ? Action::kGc : Action::kCleanStep, "", "", 0, 0, 0};
    case 28:
      return {below(2) == 0 ? Action::kCheckpoint : Action::kCleanStep, "", "", 0, 0, 0};
    case 29:
    case 30:
      return {Action::kTick, "", "", below(3) == 0 ? 6000 : below(200), 0, 0};
    default:
      return {Action::kDropCaches, "", "", 0, 0, 0};
  }
}

Status run(Store& store, FakeClock& clock, const Action& action) {
  const auto bare = [](const auto& result) -> Status {
    if (!result) return tl::unexpected(result.error());
    return {};
  };
  switch (action.kind) {
    case Action::kCreate:
      return create(store, action.path);
    case Action::kMakeDirectory:
      return make_directory(store, action.path);
    case Action::kWrite:
      return write(store, action.path, action.offset, pattern(action.seed, action.length));
    case Action::kTruncate:
      return truncate(store, action.path, action.offset);
    case Action::kPunch:
      return punch(store, action.path, action.offset, action.length);
    case Action::kRemove:
      return remove(store, action.path);
    case Action::kRename:
      return rename(store, action.path, action.other);
    case Action::kLink:
      return link(store, action.path, action.other);
    case Action::kChangeMode:
      return change_mode(store, action.path, static_cast<uint32_t>(action.offset));
    case Action::kSync:
      return store.sync();
    case Action::kSyncFile:
      return sync(store, action.path);
    case Action::kGc:
      return bare(store.gc());
    case Action::kCleanStep:
      return bare(store.clean_step());
    case Action::kCheckpoint:
      return store.checkpoint();
    case Action::kTick:
      clock.advance(std::chrono::milliseconds(action.offset));
      store.tick();
      return {};
    case Action::kDropCaches:
      store.drop_caches();
      return {};
  }
  return {};
}

StoreImage StoreImage::of(Store& store) {
  StoreImage image;
  struct Found {
    std::string path;
    log::ObjectId inode;
  };
  store.read_index([&](const index::Index& index) {
    index.for_each_inode([&](const index::Inode& inode) { image.inodes += inode.sums ? 0 : 1; });
    std::vector<Found> pending{{"", index::kRoot}};
    while (!pending.empty()) {
      const Found at = pending.back();
      pending.pop_back();
      const auto inode = index.find(at.inode);
      if (inode == nullptr) {
        image.error += at.path + " has no inode; ";
        continue;
      }
      const auto& attributes = inode->attributes;
      image.paths[at.path] = {(attributes.mode & 0170000) == 0040000,
                              attributes.mode & 07777,
                              attributes.links,
                              at.inode,
                              attributes.blob != 0,
                              Bytes(attributes.size)};
      index.for_each_child(*inode, [&](const index::Name& name) {
        pending.push_back(
            {(at.path.empty() ? "" : at.path + "/") + std::string(name.name), name.inode});
      });
    }
  });
  for (auto& [path, entry] : image.paths) {
    if (entry.directory) continue;
    const auto count = store.read(entry.inode, 0, entry.bytes);
    if (!count) {
      image.error += path + ": " + count.error().what + "; ";
    } else if (*count != entry.bytes.size()) {
      image.error += path + ": short read; ";
    }
  }
  return image;
}

std::string difference(const StoreImage& image, const Tree& tree, const MayBe& may_be) {
  if (!image.error.empty()) return image.error;
  if (image.paths.size() != tree.paths().size() + 1) {
    for (const auto& [path, entry] : image.paths) {
      if (tree.find(path) == 0) return path + " should not be there";
    }
    for (const auto& [path, id] : tree.paths()) {
      if (image.paths.count(path) == 0) return path + " is missing";
    }
  }
  if (image.inodes != tree.node_count()) {
    return std::to_string(image.inodes) + " inodes, not " + std::to_string(tree.node_count());
  }
  std::map<Tree::Id, log::ObjectId> inodes;
  std::set<log::ObjectId> taken;
  for (const auto& [path, entry] : image.paths) {
    const Tree::Id id = tree.find(path);
    if (id == 0) return path + " should not be there";
    const Tree::Node& node = *tree.node(id);
    if (entry.directory != node.directory) return path + " has another type";
    if (entry.links != node.links) {
      return path + " has " + std::to_string(entry.links) + " links, not " +
             std::to_string(node.links);
    }
    if (entry.permissions != node.permissions) return path + " has another mode";
    const auto [known, fresh] = inodes.emplace(id, entry.inode);
    if (known->second != entry.inode || (fresh && !taken.insert(entry.inode).second)) {
      return path + " is another inode";
    }
    if (node.directory || same_bytes(entry.bytes, *node.bytes)) continue;
    // Where nothing of a value in bin/ is left, it is in the log again.
    const bool blob = entry.blob || entry.bytes.empty();
    if (blob && may_be && may_be(id, entry.bytes)) continue;
    if (entry.bytes.size() != node.bytes->size()) {
      return path + (entry.blob ? " (blob)" : "") + " has " + std::to_string(entry.bytes.size()) +
             " bytes, not " + std::to_string(node.bytes->size());
    }
    const auto at = std::mismatch(entry.bytes.begin(), entry.bytes.end(), node.bytes->begin());
    return path + (entry.blob ? " (blob)" : "") + " differs at byte " +
           std::to_string(at.first - entry.bytes.begin()) + " of " +
           std::to_string(entry.bytes.size());
  }
  return "";
}

}  // namespace valfs::test
