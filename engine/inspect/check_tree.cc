// Names and inodes: what a tree must be, whatever the log says.
#include <sys/stat.h>

#include <algorithm>

#include "engine/inspect/check.h"

namespace valfs::inspect {
namespace {

using index::Index;
using index::Inode;
using log::ObjectId;

bool is_directory(const Inode& inode) {
  return S_ISDIR(inode.attributes.mode);
}

// Inodes that a path from the root leads to.
std::set<ObjectId> reachable_from(const Index& index, std::vector<ObjectId> todo) {
  std::set<ObjectId> seen(todo.begin(), todo.end());
  while (!todo.empty()) {
    const auto inode = index.find(todo.back());
    todo.pop_back();
    if (inode == nullptr) continue;
    index.for_each_child(*inode, [&](const index::Name& name) {
      if (seen.insert(name.inode).second) todo.push_back(name.inode);
    });
  }
  return seen;
}

Finding about(const Inode& inode, std::string what, std::string next) {
  Finding finding;
  finding.kind = "tree";
  finding.inode = inode.id;
  finding.what = std::move(what);
  finding.next = std::move(next);
  finding.repairable = true;
  return finding;
}

void check_inode(const Index& index, const Inode& inode, const std::set<ObjectId>& blobs,
                 const std::function<void(Finding)>& add) {
  if (inode.sums) {
    if (blobs.count(inode.id) > 0) return;
    Finding finding = about(inode, "chunk sums of a blob that no file has", "");
    finding.severity = Finding::Severity::kNote;
    finding.repairable = false;
    return add(std::move(finding));
  }
  if (!inode.base && inode.id != index::kRoot) {
    return add(about(inode, "its attributes are lost",
                     "a mount makes some up; set owner and mode by hand then"));
  }
  if (!inode.has_names() && inode.attributes.links == 0 && inode.id != index::kRoot) {
    Finding finding = about(inode, "removed while in use: the next mount frees it", "");
    finding.severity = Finding::Severity::kNote;
    finding.repairable = false;
    return add(std::move(finding));
  }
  if (!is_directory(inode) && inode.child_count() > 0) {
    add(about(inode, "it has entries, and is no directory",
              "let `valfs fsck --repair` make it a directory"));
  }
  if (is_directory(inode) && index.count_names(inode) > 1) {
    add(about(inode, "a directory with two names", "let `valfs fsck --repair` take one away"));
  }
  if (!inode.has_names() && inode.id != index::kRoot) return;  // told with the unreachable
  const uint32_t wanted = links_wanted(index, inode);
  if (inode.attributes.links != wanted) {
    add(about(inode,
              "its link count is " + std::to_string(inode.attributes.links) + ", and should be " +
                  std::to_string(wanted),
              "let `valfs fsck --repair` set it"));
  }
}

}  // namespace

uint32_t links_wanted(const Index& index, const Inode& inode) {
  uint32_t links = 0;
  if (is_directory(inode)) {
    links = 2;
    index.for_each_child(inode, [&](const index::Name& name) {
      const auto child = index.find(name.inode);
      if (child != nullptr && is_directory(*child)) links++;
    });
    return links;
  }
  return static_cast<uint32_t>(index.count_names(inode));
}

std::vector<ObjectId> find_unreachable(const Index& index) {
  std::set<ObjectId> seen = reachable_from(index, {index::kRoot});
  std::vector<ObjectId> lost;
  index.for_each_inode([&](const Inode& inode) {
    const bool dead =
        !inode.has_names() && inode.attributes.links == 0 && inode.base && inode.child_count() == 0;
    if (!inode.sums && !dead && seen.count(inode.id) == 0) lost.push_back(inode.id);
  });
  std::sort(lost.begin(), lost.end());
  // Those without a name come first, then one of each loop: whatever hangs on them is found by
  // them.
  std::vector<ObjectId> tops;
  for (const bool named : {false, true}) {
    for (const ObjectId id : lost) {
      if (seen.count(id) > 0 || index.find(id)->has_names() != named) continue;
      tops.push_back(id);
      seen.merge(reachable_from(index, {id}));
    }
  }
  return tops;
}

void check_tree(const Index& index, const std::function<void(Finding)>& add) {
  std::set<ObjectId> blobs;
  index.for_each_inode([&](const Inode& inode) {
    if (inode.attributes.blob != 0) blobs.insert(inode.attributes.blob);
  });
  const auto root = index.find(index::kRoot);
  if (root == nullptr || !root->base) {
    if (index.inode_count() > 0) {
      Finding finding;
      finding.kind = "tree";
      finding.what = "the root directory has lost its attributes";
      finding.next = "a mount makes some up; set owner and mode by hand then";
      finding.repairable = true;
      add(std::move(finding));
    }
    if (root == nullptr) return;
  }
  index.for_each_inode([&](const Inode& inode) { check_inode(index, inode, blobs, add); });
  for (const ObjectId id : find_unreachable(index)) {
    const Inode inode = *index.find(id);
    const bool loop = inode.has_names();
    add(about(inode,
              loop ? "a directory that lies in itself: no path from the root leads there"
                   : "it has no name",
              "let `valfs fsck --repair` put it into lost+found"));
  }
}

void recount_live(const Index& index, index::LiveBytes& live) {
  index.for_each_inode([&](const Inode& inode) {
    if (inode.base) live.add(inode.base.file(), log::inode_record_length());
    std::set<uint64_t> seen;
    for (const index::Extent& extent : inode.extents().all()) {
      const bool first = seen.insert(extent.record.packed).second;
      live.add(extent.record.file(), extent.own_bytes() + (first ? extent.shared_bytes() : 0));
    }
  });
  index.for_each_name([&](const index::Name& name) {
    live.add(name.record.file(), log::name_record_length(name.name.size()));
  });
}

}  // namespace valfs::inspect
