#include "tests/support/sim_store.h"

#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>

#include "tests/support/disk_handle.h"

namespace valfs::test {
namespace {

using log::LogWriter;
using log::ObjectId;

// Thousands of small disks and stores a second are made and dropped: the memory of the last serves
// the next, instead of going back to the kernel in between.
[[maybe_unused]] const bool kMemoryIsKept =
    mallopt(M_MMAP_THRESHOLD, 1 << 30) != 0 && mallopt(M_TRIM_THRESHOLD, 1 << 30) != 0;

// A SimDisk that outlives the store.
class DiskHandle final : public storage::Storage {
 public:
  explicit DiskHandle(storage::SimDisk& disk) : disk_(disk) {}

  Result<std::shared_ptr<storage::File>> open(const std::string& path,
                                              storage::OpenMode mode) override {
    return disk_.open(path, mode);
  }
  Status make_directory(const std::string& path) override { return disk_.make_directory(path); }
  Status remove(const std::string& path) override { return disk_.remove(path); }
  Status rename(const std::string& from, const std::string& to) override {
    return disk_.rename(from, to);
  }
  Status sync_directory(const std::string& path) override { return disk_.sync_directory(path); }
  Result<std::vector<std::string>> list(const std::string& path) override {
    return disk_.list(path);
  }
  Result<storage::Space> space() override { return disk_.space(); }
  Result<std::unique_ptr<storage::Lock>> lock() override { return disk_.lock(); }
  std::string boot_id() override { return disk_.boot_id(); }
  Result<std::unique_ptr<storage::StagingMemory>> make_staging(const std::string& name,
                                                               uint64_t size) override {
    return disk_.make_staging(name, size);
  }
  Result<std::unique_ptr<storage::StagingMemory>> find_staging(const std::string& name) override {
    return disk_.find_staging(name);
  }
  Status remove_staging(const std::string& name) override { return disk_.remove_staging(name); }
  void wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
            const std::function<bool()>& ready) override {
    disk_.wait(lock, changed, ready);
  }
  size_t readers() const override { return disk_.readers(); }
  std::string description() const override { return disk_.description(); }

 private:
  storage::SimDisk& disk_;
};

struct Place {
  ObjectId parent = 0;
  std::string name;
};

Result<Place> place_of(const Store& store, const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "" : path.substr(0, slash);
  const ObjectId parent = look_up(store, directory);
  if (parent == 0) return fail(ENOENT, directory);
  return Place{parent, slash == std::string::npos ? path : path.substr(slash + 1)};
}

Result<ObjectId> must_find(const Store& store, const std::string& path) {
  const ObjectId inode = look_up(store, path);
  if (inode == 0) return fail(ENOENT, path);
  return inode;
}

index::Attributes new_attributes(uint32_t mode, uint32_t links) {
  index::Attributes attributes;
  attributes.mode = mode;
  attributes.links = links;
  attributes.touch(kNow);
  attributes.set_accessed(kNow);
  attributes.set_born(kNow);
  return attributes;
}

bool is_directory(const index::Attributes& attributes) {
  return (attributes.mode & 0170000) == 0040000;
}

void change_links(Transaction& transaction, ObjectId inode, int by) {
  index::Attributes attributes = transaction.index().find(inode)->attributes;
  attributes.links = static_cast<uint32_t>(static_cast<int>(attributes.links) + by);
  attributes.set_changed(kNow);
  transaction.put(inode, attributes);
}

// Takes a name, and with the last one the inode. Returns the blob that goes with it.
ObjectId take_name(Transaction& transaction, const index::Name& name) {
  const ObjectId id = name.inode;
  const index::Inode inode = *transaction.index().find(id);
  transaction.remove_name(name);
  if (is_directory(inode.attributes)) {
    transaction.remove(id);
    change_links(transaction, name.parent, -1);
    return 0;
  }
  if (inode.attributes.links > 1) {
    change_links(transaction, id, -1);
    return 0;
  }
  const ObjectId blob = inode.attributes.blob;
  transaction.remove(id);
  if (blob != 0) transaction.remove(blob);
  return blob;
}

Transaction::Size room_for(size_t records, std::string_view names) {
  return Transaction::Size::of(records, names.size(), 0);
}

}  // namespace

StoreOptions small_options(const FakeClock& clock) {
  StoreOptions options;
  options.log_file_size = 256 * kKiB;
  options.cache = 256 * kKiB;
  options.slots = 4;
  options.slot_size = 64 * kKiB;
  options.clean_slice = 96 * kKiB;
  options.checkpoint_after = 512 * kKiB;
  options.blob_threshold = 32 * kKiB;
  options.fold_extents = 6;
  options.background = false;
  options.create = true;
  options.clock = clock.function();
  return options;
}

std::unique_ptr<storage::Storage> handle_of(storage::SimDisk& disk) {
  return std::make_unique<DiskHandle>(disk);
}

Result<std::unique_ptr<Store>> open_store(storage::SimDisk& disk, const StoreOptions& options) {
  return Store::open(handle_of(disk), options);
}

std::unique_ptr<Store> must_open(storage::SimDisk& disk, const StoreOptions& options) {
  auto store = open_store(disk, options);
  if (store) return std::move(*store);
  std::fprintf(stderr, "store does not open: %s\n", store.error().what.c_str());
  std::abort();
}

bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

Bytes pattern(uint64_t seed, size_t length) {
  Bytes bytes(length);
  uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  // Noise in each line, so that no two lines of any two values are alike.
  constexpr size_t kLine = 64;
  constexpr size_t kNoise = 16;
  const size_t noise = seed % kCompressibleSeeds == 0 ? kNoise : kLine;
  for (size_t i = 0; i < length; i++) {
    state = state * 6364136223846793005 + 1442695040888963407;
    bytes[i] = i % kLine < noise ? static_cast<std::byte>(state >> 56) : std::byte{'v'};
  }
  return bytes;
}

ObjectId look_up(const Store& store, std::string_view path) {
  ObjectId inode = index::kRoot;
  store.read_index([&](const index::Index& index) {
    while (!path.empty() && inode != 0) {
      const size_t slash = path.find('/');
      const auto name = index.find(inode, path.substr(0, slash));
      inode = name == nullptr ? 0 : name->inode;
      path = slash == std::string_view::npos ? "" : path.substr(slash + 1);
    }
  });
  return inode;
}

index::Attributes attributes_of(const Store& store, ObjectId inode) {
  index::Attributes attributes;
  store.read_index([&](const index::Index& index) {
    if (const auto found = index.find(inode)) attributes = found->attributes;
  });
  return attributes;
}

Status make_directory(Store& store, const std::string& path) {
  VALFS_ASSIGN(const Place place, place_of(store, path));
  VALFS_ASSIGN(auto transaction, store.begin(room_for(3, place.name)));
  const ObjectId inode = transaction.new_object();
  transaction.put(inode, new_attributes(0040755, 2));
  transaction.add_name(place.parent, place.name, inode);
  change_links(transaction, place.parent, 1);
  transaction.commit(kNow);
  return {};
}

Status create(Store& store, const std::string& path) {
  VALFS_ASSIGN(const Place place, place_of(store, path));
  VALFS_ASSIGN(auto transaction, store.begin(room_for(2, place.name)));
  const ObjectId inode = transaction.new_object();
  transaction.add_name(place.parent, place.name, inode);
  transaction.put(inode, new_attributes(0100644, 1));
  transaction.commit(kNow);
  return {};
}

Status write(Store& store, const std::string& path, uint64_t offset,
             std::span<const std::byte> bytes) {
  VALFS_ASSIGN(const ObjectId inode, must_find(store, path));
  return store.write(inode, offset, bytes, kNow);
}

Status append(Store& store, const std::string& path, std::span<const std::byte> bytes) {
  VALFS_ASSIGN(const ObjectId inode, must_find(store, path));
  return store.write(inode, attributes_of(store, inode).size, bytes, kNow);
}

Status truncate(Store& store, const std::string& path, uint64_t size) {
  VALFS_ASSIGN(const ObjectId inode, must_find(store, path));
  return store.truncate(inode, size, kNow);
}

Status punch(Store& store, const std::string& path, uint64_t offset, uint64_t length) {
  VALFS_ASSIGN(const ObjectId inode, must_find(store, path));
  return store.punch(inode, offset, length, kNow);
}

Status change_mode(Store& store, const std::string& path, uint32_t permissions) {
  VALFS_ASSIGN(const ObjectId inode, must_find(store, path));
  VALFS_ASSIGN(auto transaction, store.begin(room_for(1, "")));
  index::Attributes attributes = transaction.index().find(inode)->attributes;
  attributes.mode = (attributes.mode & 0170000) | permissions;
  attributes.set_changed(kNow);
  transaction.put(inode, attributes);
  transaction.commit(kNow);
  return {};
}

Status remove(Store& store, const std::string& path) {
  VALFS_ASSIGN(const Place place, place_of(store, path));
  ObjectId inode = 0;
  ObjectId blob = 0;
  {
    VALFS_ASSIGN(auto transaction, store.begin(room_for(4, ""), LogWriter::Purpose::kReserve));
    const auto name = transaction.index().find(place.parent, place.name);
    if (name == nullptr) return fail(ENOENT, path);
    inode = name->inode;
    blob = take_name(transaction, *name);
    transaction.commit(kNow);
  }
  if (blob != 0) store.blob_removed(blob, inode);
  return {};
}

Status rename(Store& store, const std::string& from, const std::string& to) {
  VALFS_ASSIGN(const Place source, place_of(store, from));
  VALFS_ASSIGN(const Place target, place_of(store, to));
  // Promise P5: bytes in bin/ first.
  VALFS_ASSIGN(const ObjectId moved, must_find(store, from));
  if (attributes_of(store, moved).blob != 0) VALFS_TRY(store.sync(moved));
  ObjectId victim = 0;
  ObjectId blob = 0;
  {
    VALFS_ASSIGN(auto transaction, store.begin(room_for(9, target.name)));
    const auto name = transaction.index().find(source.parent, source.name);
    if (name == nullptr) return fail(ENOENT, from);
    const ObjectId inode = name->inode;
    const bool directory = is_directory(transaction.index().find(inode)->attributes);
    const auto over = transaction.index().find(target.parent, target.name);
    if (over != nullptr && over->inode == inode) return {};
    int links = directory && source.parent != target.parent ? 1 : 0;
    if (over != nullptr) {
      victim = over->inode;
      if (is_directory(transaction.index().find(victim)->attributes)) {
        transaction.remove_name(*over);
        transaction.remove(victim);
        links--;
      } else {
        blob = take_name(transaction, *over);
      }
    }
    transaction.remove_name(*name);
    transaction.add_name(target.parent, target.name, inode);
    if (links != 0) change_links(transaction, target.parent, links);
    if (directory && source.parent != target.parent) change_links(transaction, source.parent, -1);
    transaction.commit(kNow);
  }
  if (blob != 0) store.blob_removed(blob, victim);
  return {};
}

Status link(Store& store, const std::string& path, const std::string& other) {
  VALFS_ASSIGN(const ObjectId inode, must_find(store, path));
  VALFS_ASSIGN(const Place place, place_of(store, other));
  VALFS_ASSIGN(auto transaction, store.begin(room_for(2, place.name)));
  transaction.add_name(place.parent, place.name, inode);
  change_links(transaction, inode, 1);
  transaction.commit(kNow);
  return {};
}

Status sync(Store& store, const std::string& path) {
  VALFS_ASSIGN(const ObjectId inode, must_find(store, path));
  return store.sync(inode);
}

Status put(Store& store, const std::string& path, std::span<const std::byte> bytes) {
  if (look_up(store, path) == 0) {
    VALFS_TRY(create(store, path));
  } else {
    VALFS_TRY(truncate(store, path, 0));
  }
  constexpr size_t kPiece = 32 * kKiB;
  for (size_t at = 0; at < bytes.size(); at += kPiece) {
    VALFS_TRY(write(store, path, at, bytes.subspan(at, std::min(kPiece, bytes.size() - at))));
  }
  return {};
}

Result<Bytes> get(Store& store, const std::string& path) {
  VALFS_ASSIGN(const ObjectId inode, must_find(store, path));
  Bytes bytes(attributes_of(store, inode).size);
  VALFS_ASSIGN(const size_t count, store.read(inode, 0, bytes));
  if (count != bytes.size()) return fail(ERANGE, path + ": read " + std::to_string(count));
  return bytes;
}

namespace {

std::string check(const index::Index& index) {
  std::map<log::FileId, uint64_t> live;
  std::string bad;
  uint64_t total = 0;
  const auto count = [&](log::Position record, uint64_t bytes) {
    live[record.file()] += bytes;
    total += bytes;
  };
  index.for_each_inode([&](const index::Inode& inode) {
    if (inode.base) count(inode.base, log::inode_record_length());
    std::set<uint64_t> seen;
    uint64_t end = 0;
    for (const index::Extent& extent : inode.extents().all()) {
      const bool first = seen.insert(extent.record.packed).second;
      count(extent.record, extent.own_bytes() + (first ? extent.shared_bytes() : 0));
      if (extent.offset < end) bad += "extents of " + std::to_string(inode.id) + " overlap; ";
      end = extent.end();
    }
    if (end > inode.attributes.size) bad += std::to_string(inode.id) + " ends behind its size; ";
    for (auto name = index.first_name(inode); name != nullptr; name = index.next_name(*name)) {
      if (name->inode != inode.id) bad += "link list of " + std::to_string(inode.id) + "; ";
    }
  });
  index.for_each_name([&](const index::Name& name) {
    count(name.record, log::name_record_length(name.name.size()));
    if (index.find(name.inode) == nullptr)
      bad += "name without inode: " + std::string(name.name) + "; ";
    const auto parent = index.find(name.parent);
    const auto child = parent == nullptr ? index::Found<index::Name>()
                                         : index.next_child(*parent, name.cookie - 1);
    if (child == nullptr || child->row != name.row) {
      bad += "name without directory: " + std::string(name.name) + "; ";
    }
  });
  for (const auto& [file, bytes] : live) {
    if (index.live().of(file) != bytes) {
      bad += "log file " + std::to_string(file) + ": " + std::to_string(index.live().of(file)) +
             " live bytes noted, " + std::to_string(bytes) + " counted; ";
    }
  }
  if (index.live().total() != total) bad += "total of live bytes; ";
  return bad;
}

}  // namespace

std::string check_index(const Store& store) {
  std::string bad;
  store.read_index([&](const index::Index& index) { bad = check(index); });
  return bad;
}

}  // namespace valfs::test
