#include "engine/recovery/nameless.h"

#include <sys/stat.h>

#include "engine/transaction.h"

namespace valfs::recovery {
namespace {

constexpr const char* kLostAndFound = "lost+found";

struct Place {
  log::ObjectId parent = 0;
  std::string name;
};

bool is_directory(const index::Found<index::Inode>& inode) {
  return inode != nullptr && S_ISDIR(inode->attributes.mode) && inode->attributes.links > 0;
}

std::vector<log::ObjectId> find_nameless(const index::Index& index) {
  std::vector<log::ObjectId> found;
  index.for_each_inode([&](const index::Inode& inode) {
    if (inode.base && !inode.sums && inode.id != index::kRoot && !inode.has_names() &&
        inode.attributes.links > 0) {
      found.push_back(inode.id);
    }
  });
  return found;
}

// One directory more in `parent`.
void count_directory(Transaction& transaction, log::ObjectId parent, Time now) {
  index::Attributes attributes = transaction.index().find(parent)->attributes;
  attributes.links++;
  attributes.touch(now);
  transaction.put(parent, attributes);
}

Result<log::ObjectId> lost_and_found(Core& core, Time now) {
  if (const auto name = core.index.find(index::kRoot, kLostAndFound)) {
    if (is_directory(core.index.find(name->inode))) return name->inode;
    return index::kRoot;  // somebody's file has that name
  }
  VALFS_ASSIGN(auto transaction, Transaction::begin(core, Transaction::Size::of(3, 16, 0),
                                                    log::LogWriter::Purpose::kCleaner));
  index::Attributes attributes;
  attributes.mode = S_IFDIR | 0700;
  attributes.links = 2;
  attributes.set_accessed(now);
  attributes.touch(now);
  attributes.set_born(now);
  const log::ObjectId id = transaction.new_object();
  transaction.put(id, attributes);
  transaction.add_name(index::kRoot, kLostAndFound, id);
  count_directory(transaction, index::kRoot, now);
  transaction.commit(now);
  return id;
}

Result<Place> place_for(Core& core, log::ObjectId id, const Recovered& recovered, Time now) {
  const auto hint = recovered.name_hints.find(id);
  if (hint != recovered.name_hints.end()) {
    const auto& [parent, name] = hint->second;
    if (is_directory(core.index.find(parent)) && core.index.find(parent, name) == nullptr) {
      return Place{parent, name};
    }
  }
  VALFS_ASSIGN(const log::ObjectId directory, lost_and_found(core, now));
  return Place{directory, "#" + std::to_string(id)};
}

}  // namespace

Status name_the_nameless(Core& core, const Recovered& recovered, Time now,
                         std::vector<std::string>& warnings) {
  for (const log::ObjectId id : find_nameless(core.index)) {
    VALFS_ASSIGN(const Place place, place_for(core, id, recovered, now));
    if (core.index.find(place.parent, place.name) != nullptr)
      continue;  // found by an earlier mount
    const bool directory = is_directory(core.index.find(id));
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(core, Transaction::Size::of(2, place.name.size(), 0),
                                    log::LogWriter::Purpose::kCleaner));
    transaction.add_name(place.parent, place.name, id);
    if (directory) count_directory(transaction, place.parent, now);
    transaction.commit(now);
    warnings.push_back("the name of inode " + std::to_string(id) + " was lost; it is now " +
                       core.index.path_of(id));
  }
  return {};
}

}  // namespace valfs::recovery
