#include "fs/salvage_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace valfs::fs {
namespace {

using index::Inode;
using log::ObjectId;

constexpr ObjectId kLost = 0;  // stands for lost+found
constexpr const char* kLostName = "lost+found";
constexpr const char* kReportName = "salvage-report.jsonl";

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }

 private:
  const int fd_;
};

tl::unexpected<Error> failure(const std::string& path) {
  const int error = errno;
  return fail(error, path + ": " + std::strerror(error));
}

// Whether what went wrong concerns the target as a whole.
bool is_hopeless(int error) {
  return error == ENOSPC || error == EDQUOT || error == EROFS || error == EIO;
}

bool is_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 &&
         name.find('/') == std::string::npos && name.find('\0') == std::string::npos;
}

timespec timespec_of(Time time) {
  return {static_cast<time_t>(time.seconds), static_cast<long>(time.nanoseconds)};
}

}  // namespace

SalvageWriter::SalvageWriter(const inspect::Salvage& salvage, std::string target)
    : salvage_(salvage), target_(std::move(target)) {}

SalvageWriter::~SalvageWriter() {
  if (report_ >= 0) ::close(report_);
  if (root_ >= 0) ::close(root_);
}

// --- where everything goes ---

bool SalvageWriter::is_directory(ObjectId id) const {
  if (id == kLost || id == index::kRoot) return true;
  const auto inode = salvage_.index().find(id);
  if (inode == nullptr || !inode->base) return children_.count(id) > 0;
  return S_ISDIR(inode->attributes.mode);
}

void SalvageWriter::put(ObjectId directory, std::string name, ObjectId inode) {
  if (!taken_[directory].insert(name).second) {  // by hearsay it had the name of another
    name += "#" + std::to_string(inode);
    taken_[directory].insert(name);
  }
  children_[directory].push_back({std::move(name), inode});
}

void SalvageWriter::put_lost(ObjectId inode) {
  counts_.unplaced++;
  put(kLost, std::to_string(inode), inode);
}

void SalvageWriter::place(const Inode& inode) {
  if (inode.sums || inode.id == index::kRoot) return;
  if (inode.has_names()) {
    const index::Index& index = salvage_.index();
    for (auto name = index.first_name(inode); name != nullptr; name = index.next_name(*name)) {
      if (is_name(name->name)) {
        put(name->parent, std::string(name->name), inode.id);
      } else {
        put_lost(inode.id);
      }
    }
    return;
  }
  // Removed while somebody had it open: nobody misses it.
  if (inode.base && inode.attributes.links == 0) return;
  const auto hint = salvage_.hints().find(inode.id);
  if (hint != salvage_.hints().end() && hint->second.parent != 0 && is_name(hint->second.name)) {
    return put(hint->second.parent, hint->second.name, inode.id);
  }
  // One that has lost everything but a trace is no file: a directory is placed by its entries.
  if (!inode.base && inode.extents().empty()) return;
  put_lost(inode.id);
}

void SalvageWriter::place_all() {
  taken_[index::kRoot].insert({kReportName, kLostName});
  std::vector<Inode> inodes;
  salvage_.index().for_each_inode([&](const Inode& inode) { inodes.push_back(inode); });
  std::sort(inodes.begin(), inodes.end(), [](const Inode& a, const Inode& b) {
    return a.has_names() != b.has_names() ? a.has_names() : a.id < b.id;
  });
  // The volume's own lost+found is where ours is.
  const auto lost = salvage_.index().find(index::kRoot, kLostName);
  for (const Inode& inode : inodes) {
    if (lost != nullptr && inode.id == lost->inode) continue;
    place(inode);
  }
  if (lost != nullptr && is_directory(lost->inode)) {
    for (const Item& item : children_[lost->inode]) put(kLost, item.name, item.inode);
    children_.erase(lost->inode);
    written_directories_.insert(lost->inode);
  }
  // Directories of which only their entries speak.
  std::set<ObjectId> placed{kLost, index::kRoot};
  for (const auto& [directory, items] : children_) {
    for (const Item& item : items) placed.insert(item.inode);
  }
  std::vector<ObjectId> nameless;
  for (const auto& [directory, items] : children_) {
    if (placed.count(directory) == 0) nameless.push_back(directory);
  }
  for (const ObjectId id : nameless) put_lost(id);
}

// --- writing ---

Status SalvageWriter::run() {
  root_ = ::open(target_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root_ < 0) return failure(target_);
  report_ = ::openat(root_, kReportName, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (report_ < 0) return failure(target_ + "/" + kReportName);
  place_all();
  report_damages();
  written_directories_.insert(index::kRoot);
  for (const Item& item : children_[index::kRoot]) VALFS_TRY(write_item(root_, "", item));
  VALFS_TRY(write_lost(root_));
  set_attributes(root_, "", salvage_.index().find(index::kRoot), true);
  OrderedJson json;
  json["kind"] = "summary";
  json["log_files"] = salvage_.log_files();
  json["records"] = salvage_.records();
  json["files"] = counts_.files;
  json["directories"] = counts_.directories;
  json["links"] = counts_.links;
  json["bytes"] = counts_.bytes;
  json["damaged"] = counts_.damaged;
  json["unplaced"] = counts_.unplaced;
  report(json);
  if (::fsync(report_) != 0 || ::syncfs(root_) != 0) return failure(target_);
  return {};
}

Status SalvageWriter::write_lost(int root) {
  // Directories that lie in themselves hang on nothing: one of each loop goes here.
  for (const auto& [directory, items] : std::map<ObjectId, std::vector<Item>>(children_)) {
    if (directory == kLost || written_directories_.count(directory) > 0) continue;
    const bool lost_already =
        std::any_of(children_[kLost].begin(), children_[kLost].end(),
                    [id = directory](const Item& item) { return item.inode == id; });
    if (!lost_already) put_lost(directory);
  }
  const auto blobs = salvage_.nameless_blobs();
  if (children_[kLost].empty() && blobs.empty()) return {};
  if (::mkdirat(root, kLostName, 0700) != 0) return failure(target_ + "/" + kLostName);
  const Fd directory(::openat(root, kLostName, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (directory.get() < 0) return failure(target_ + "/" + kLostName);
  const auto items = children_[kLost];
  for (const Item& item : items) {
    VALFS_TRY(write_item(directory.get(), std::string(kLostName) + "/", item));
  }
  return write_nameless_blobs(directory.get());
}

// `path` of the directory that holds it, "" or with a '/' at its end.
Status SalvageWriter::write_item(int directory, const std::string& path, const Item& item) {
  const std::string own = path + item.name;
  Status done;
  const auto inode = salvage_.index().find(item.inode);
  if (is_directory(item.inode)) {
    if (!written_directories_.insert(item.inode).second) return {};  // met on another way
    if (::mkdirat(directory, item.name.c_str(), 0700) != 0) {
      done = failure(own);
    } else {
      done = write_directory(directory, own, item.inode);
    }
  } else if (inode == nullptr) {
    return {};
  } else if (S_ISLNK(inode->attributes.mode)) {
    done = write_symlink(directory, own, item, *inode);
  } else {
    done = write_file(directory, own, item, *inode);
  }
  if (done || is_hopeless(done.error().code)) return done;
  OrderedJson json;
  json["kind"] = "not-written";
  put_text(json, "path", own);
  json["inode"] = item.inode;
  put_text(json, "what", done.error().what);
  report(json);
  counts_.damaged++;
  return {};
}

Status SalvageWriter::write_directory(int parent, const std::string& path, ObjectId id) {
  const std::string name = path.substr(path.rfind('/') + 1);
  const Fd directory(
      ::openat(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
  if (directory.get() < 0) return failure(path);
  counts_.directories++;
  const auto items = children_.find(id);
  if (items != children_.end()) {
    for (const Item& item : items->second) {
      VALFS_TRY(write_item(directory.get(), path + "/", item));
    }
  }
  set_attributes(directory.get(), path, salvage_.index().find(id), true);
  return {};
}

Status SalvageWriter::write_file(int directory, const std::string& path, const Item& item,
                                 const Inode& inode) {
  const auto first = written_files_.find(item.inode);
  if (first != written_files_.end() &&
      ::linkat(root_, first->second.c_str(), directory, item.name.c_str(), 0) == 0) {
    return {};
  }
  const mode_t mode = inode.attributes.mode;
  if (inode.base && !S_ISREG(mode)) {  // fifo, socket, device
    if (::mknodat(directory, item.name.c_str(), mode & S_IFMT, inode.attributes.device) != 0) {
      return failure(path);
    }
    counts_.links++;
    const Fd node(::openat(directory, item.name.c_str(), O_PATH | O_CLOEXEC | O_NOFOLLOW));
    const std::string self = "/proc/self/fd/" + std::to_string(node.get());
    (void)::fchownat(directory, item.name.c_str(), inode.attributes.uid, inode.attributes.gid,
                     AT_SYMLINK_NOFOLLOW);
    (void)::chmod(self.c_str(), mode & 07777);
    return {};
  }
  const Fd file(::openat(directory, item.name.c_str(),
                         O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.get() < 0) return failure(path);
  Status written;
  const auto write = [&](uint64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty() && written) {
      const ssize_t count =
          ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) {
        written = failure(target_ + "/" + path);
        break;
      }
      bytes = bytes.subspan(static_cast<size_t>(count));
      offset += static_cast<uint64_t>(count);
      counts_.bytes += static_cast<uint64_t>(count);
    }
    return written.has_value();
  };
  const auto holes = salvage_.read_value(inode, write);
  VALFS_TRY(written);
  if (::ftruncate(file.get(), static_cast<off_t>(inode.attributes.size)) != 0) {
    return failure(path);
  }
  report_holes(path, item.inode, holes);
  set_attributes(file.get(), path, inode, false);
  counts_.files++;
  written_files_[item.inode] = path;
  return {};
}

Status SalvageWriter::write_symlink(int directory, const std::string& path, const Item& item,
                                    const Inode& inode) {
  std::string target(std::min<uint64_t>(inode.attributes.size, PATH_MAX), '\0');
  const auto holes =
      salvage_.read_value(inode, [&](uint64_t offset, std::span<const std::byte> bytes) {
        if (offset + bytes.size() > target.size()) return false;
        std::memcpy(target.data() + offset, bytes.data(), bytes.size());
        return true;
      });
  if (!holes.empty() || target.empty()) {
    report_holes(path, item.inode, holes);
    return {};
  }
  if (::symlinkat(target.c_str(), directory, item.name.c_str()) != 0) return failure(path);
  (void)::fchownat(directory, item.name.c_str(), inode.attributes.uid, inode.attributes.gid,
                   AT_SYMLINK_NOFOLLOW);
  const timespec times[2] = {timespec_of(inode.attributes.accessed()),
                             timespec_of(inode.attributes.modified())};
  (void)::utimensat(directory, item.name.c_str(), times, AT_SYMLINK_NOFOLLOW);
  counts_.links++;
  return {};
}

Status SalvageWriter::write_nameless_blobs(int directory) {
  for (const auto& [id, from] : salvage_.nameless_blobs()) {
    const uint64_t size = salvage_.blob_size(id);
    const std::string name = "blob-" + std::to_string(id);
    const Fd file(::openat(directory, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (file.get() < 0) return failure(name);
    Status written;
    const auto holes =
        salvage_.read_blob(id, size, [&](uint64_t offset, std::span<const std::byte> bytes) {
          const ssize_t count =
              ::pwrite(file.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
          if (count != static_cast<ssize_t>(bytes.size())) {
            if (count >= 0) errno = ENOSPC;
            written = failure(name);
          }
          return written.has_value();
        });
    VALFS_TRY(written);
    if (::ftruncate(file.get(), static_cast<off_t>(size)) != 0) return failure(name);
    counts_.files++;
    counts_.unplaced++;
    OrderedJson json;
    json["kind"] = "blob";
    put_text(json, "path", std::string(kLostName) + "/" + name);
    put_text(json, "file", from);
    json["what"] = "no record says which file this large value belongs to";
    report(json);
    report_holes(std::string(kLostName) + "/" + name, id, holes);
  }
  return {};
}

void SalvageWriter::set_attributes(int fd, const std::string& path,
                                   const index::Found<Inode>& inode, bool directory) {
  if (inode == nullptr || !inode->base) {
    if (path.empty() && directory) return;  // the target itself
    (void)::fchmod(fd, directory ? 0700 : 0600);
    OrderedJson json;
    json["kind"] = "attributes";
    put_text(json, "path", path);
    json["what"] = "owner, mode and times are lost";
    return report(json);
  }
  const index::Attributes& attributes = inode->attributes;
  // Only root may give files away; the mode comes after, because a change of owner takes bits off.
  const bool owned = ::fchown(fd, attributes.uid, attributes.gid) == 0;
  const mode_t mode = attributes.mode & (owned ? 07777 : 01777);
  (void)::fchmod(fd, mode);
  const timespec times[2] = {timespec_of(attributes.accessed()),
                             timespec_of(attributes.modified())};
  (void)::futimens(fd, times);
}

// --- the report ---

void SalvageWriter::report_holes(const std::string& path, ObjectId inode,
                                 const std::vector<inspect::Salvage::Hole>& holes) {
  if (!holes.empty()) counts_.damaged++;
  for (const auto& hole : holes) {
    OrderedJson json;
    json["kind"] = "value";
    put_text(json, "path", path);
    json["inode"] = inode;
    json["offset"] = hole.offset;
    json["length"] = hole.length;
    put_text(json, "what", hole.what);
    report(json);
  }
}

void SalvageWriter::report_damages() {
  for (const std::string& remark : salvage_.remarks()) {
    OrderedJson json;
    json["kind"] = "remark";
    put_text(json, "what", remark);
    report(json);
  }
  for (const inspect::Damage& damage : salvage_.damages()) {
    OrderedJson json;
    json["kind"] = "log";
    json["file"] = log::log_file_path(damage.file);
    json["offset"] = damage.begin;
    json["length"] = damage.end - damage.begin;
    json["what"] = damage.text();
    if (damage.lost) json["id"] = damage.lost->id;
    report(json);
  }
}

void SalvageWriter::report(OrderedJson json) {
  const std::string line = json.dump() + "\n";
  if (::write(report_, line.data(), line.size()) < 0) return;  // run() asks whether it is durable
}

}  // namespace valfs::fs
