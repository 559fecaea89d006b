// Repairs that are changes of the volume, made as a running store makes them.
#include <sys/stat.h>
#include <time.h>

#include "engine/inspect/repair.h"
#include "engine/store.h"

namespace valfs::inspect {
namespace {

using index::Attributes;
using index::Inode;
using log::ObjectId;
using Size = Transaction::Size;

constexpr auto kPurpose = log::LogWriter::Purpose::kReserve;
constexpr const char* kLostAndFound = "lost+found";

Time wall_clock() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return {now.tv_sec, static_cast<uint32_t>(now.tv_nsec)};
}

class TreeRepair {
 public:
  TreeRepair(Store& store, const Diagnosis& diagnosis, const Acted& acted)
      : store_(store), diagnosis_(diagnosis), acted_(acted), now_(wall_clock()) {}

  Status run() {
    VALFS_TRY(write_faded());
    VALFS_TRY(make_directories());
    VALFS_TRY(take_second_names());
    VALFS_TRY(find_home());
    return set_links();
  }

 private:
  std::string path_of(ObjectId id) const {
    std::string path;
    store_.read_index([&](const index::Index& index) { path = index.path_of(id); });
    return path;
  }
  std::vector<ObjectId> select(
      const std::function<bool(const index::Index&, const Inode&)>& which) {
    std::vector<ObjectId> ids;
    store_.read_index([&](const index::Index& index) {
      index.for_each_inode([&](const Inode& inode) {
        if (!inode.sums && which(index, inode)) ids.push_back(inode.id);
      });
    });
    return ids;
  }
  // Changes the attributes of one inode.
  Status change(ObjectId id, const std::function<void(const index::Index&, Attributes&)>& how) {
    VALFS_ASSIGN(auto transaction, store_.begin(Size::of(1, 0, 0), kPurpose));
    const auto inode = transaction.index().find(id);
    if (inode == nullptr) return {};
    Attributes attributes = inode->attributes;
    how(transaction.index(), attributes);
    transaction.put(id, attributes);
    transaction.commit(now_);
    return {};
  }

  // What only the checkpoint knows goes to the log again, as it is.
  Status write_faded() {
    for (const ObjectId id : diagnosis_.faded_inodes) {
      VALFS_TRY(change(id, [](const index::Index&, Attributes&) {}));
      acted_("its attributes were written to the log anew", path_of(id));
    }
    for (const auto& [parent, text] : diagnosis_.faded_names) {
      VALFS_ASSIGN(auto transaction, store_.begin(Size::of(1, text.size(), 0), kPurpose));
      const auto name = transaction.index().find(parent, text);
      if (name == nullptr) continue;
      log::Record record;
      record.type = log::RecordType::kName;
      record.flags = log::kCopy;  // the directory's times stay as they are
      record.id = name->cookie;
      record.a = name->inode;
      record.b = parent;
      record.name = text;
      const ObjectId id = name->inode;
      transaction.add(record);
      transaction.commit({});
      acted_("its name was written to the log anew", path_of(id));
    }
    return {};
  }

  Status make_directories() {
    const auto ids = select([](const index::Index&, const Inode& inode) {
      return inode.child_count() > 0 && !S_ISDIR(inode.attributes.mode);
    });
    for (const ObjectId id : ids) {
      VALFS_TRY(change(id, [](const index::Index&, Attributes& attributes) {
        attributes.mode = S_IFDIR | 0700;
      }));
      acted_("it has entries: made a directory", path_of(id));
    }
    return {};
  }

  // The youngest name of a directory stays: a rename made it.
  Status take_second_names() {
    const auto ids = select([](const index::Index& index, const Inode& inode) {
      return S_ISDIR(inode.attributes.mode) && index.count_names(inode) > 1;
    });
    for (const ObjectId id : ids) {
      for (bool more = true; more;) {
        VALFS_ASSIGN(auto transaction, store_.begin(Size::of(1, 0, 0), kPurpose));
        const index::Index& index = transaction.index();
        const auto inode = index.find(id);
        more = index.count_names(*inode) > 1;
        if (!more) break;
        auto oldest = index.first_name(*inode);
        for (auto other = oldest; other != nullptr; other = index.next_name(*other)) {
          if (other->cookie < oldest->cookie) oldest = other;
        }
        const std::string name(oldest->name);
        transaction.remove_name(*oldest);
        transaction.commit(now_);
        acted_("the directory had a second name, \"" + name + "\", which was taken away",
               path_of(id));
      }
    }
    return {};
  }

  Result<ObjectId> lost_and_found() {
    ObjectId known = 0;
    bool usable = false;
    store_.read_index([&](const index::Index& index) {
      const auto name = index.find(index::kRoot, kLostAndFound);
      if (name == nullptr) return;
      known = name->inode;
      usable = S_ISDIR(index.find(known)->attributes.mode);
    });
    if (known != 0) return usable ? known : index::kRoot;  // somebody's file has that name
    VALFS_ASSIGN(auto transaction, store_.begin(Size::of(2, 16, 0), kPurpose));
    Attributes attributes;
    attributes.mode = S_IFDIR | 0700;
    attributes.links = 2;
    attributes.set_accessed(now_);
    attributes.touch(now_);
    attributes.set_born(now_);
    const ObjectId id = transaction.new_object();
    transaction.put(id, attributes);
    transaction.add_name(index::kRoot, kLostAndFound, id);
    transaction.commit(now_);
    return id;
  }

  Status find_home() {
    std::vector<ObjectId> tops;
    store_.read_index([&](const index::Index& index) { tops = find_unreachable(index); });
    for (const ObjectId id : tops) {
      VALFS_ASSIGN(const ObjectId directory, lost_and_found());
      const std::string name = "#" + std::to_string(id);
      VALFS_ASSIGN(auto transaction, store_.begin(Size::of(3, name.size(), 0), kPurpose));
      const auto inode = transaction.index().find(id);
      // A loop is opened where it was met.
      if (S_ISDIR(inode->attributes.mode) && inode->has_names()) {
        transaction.remove_name(*transaction.index().first_name(*inode));
      }
      if (!inode->base) {
        Attributes attributes = inode->attributes;
        attributes.mode = inode->child_count() == 0 ? S_IFREG | 0600 : S_IFDIR | 0700;
        transaction.put(id, attributes);
      }
      transaction.add_name(directory, name, id);
      transaction.commit(now_);
      acted_("no path led to it: put into lost+found", path_of(id));
    }
    return {};
  }

  Status set_links() {
    const auto ids = select([](const index::Index& index, const Inode& inode) {
      const bool dead = !inode.has_names() && inode.id != index::kRoot;
      return !dead && inode.attributes.links != links_wanted(index, inode);
    });
    for (const ObjectId id : ids) {
      uint32_t links = 0;
      VALFS_TRY(change(id, [&](const index::Index& index, Attributes& attributes) {
        links = attributes.links = links_wanted(index, *index.find(id));
      }));
      acted_("its link count was set to " + std::to_string(links), path_of(id));
    }
    return {};
  }

  Store& store_;
  const Diagnosis& diagnosis_;
  const Acted& acted_;
  const Time now_;
};

}  // namespace

bool needs_store(const Diagnosis& diagnosis) {
  return diagnosis.log_files_missing || diagnosis.tree_broken || diagnosis.checkpoint_missing ||
         !diagnosis.faded_inodes.empty() || !diagnosis.faded_names.empty();
}

Status repair_store(std::unique_ptr<storage::Storage> storage, StoreOptions options,
                    const Diagnosis& diagnosis, const Acted& acted) {
  options.create = false;
  options.background = false;
  options.accept_missing_log_files = diagnosis.log_files_missing;
  VALFS_ASSIGN(const auto store, Store::open(std::move(storage), options));
  for (const std::string& text : store->recovery_warnings()) acted(text, "");
  VALFS_TRY(TreeRepair(*store, diagnosis, acted).run());
  VALFS_TRY(store->checkpoint());
  acted("a new checkpoint was written", "");
  return store->close();
}

}  // namespace valfs::inspect
