// Requests about directories: readdir, readdirplus, fsyncdir. An offset is the cookie of the last
// name that was shown, and the number of the listing; cookies are never reused, so the directory
// may change in between.
#include <cstring>
#include <string>
#include <vector>

#include "fs/parts.h"

namespace valfs::fs {
namespace {

constexpr uint64_t kDotCookie = 1;
constexpr uint64_t kDotDotCookie = 2;

struct Listed {
  uint64_t cookie = 0;
  std::string name;
  Node node;
  bool held = false;  // the entry gives the kernel a reference
};

// Collects entries until the reply is full.
class Listing {
 public:
  Listing(fuse_req_t request, size_t room, uint64_t number, bool plus)
      : request_(request), room_(room), number_(number), plus_(plus) {}

  // False if it does not fit.
  bool add(uint64_t cookie, const std::string& name, const Node& node, bool held) {
    const size_t need = plus_
                            ? fuse_add_direntry_plus(request_, nullptr, 0, name.c_str(), nullptr, 0)
                            : fuse_add_direntry(request_, nullptr, 0, name.c_str(), nullptr, 0);
    if (used_ + need > room_) return false;
    used_ += need;
    entries_.push_back({cookie, name, node, held && plus_});
    return true;
  }

  std::vector<Listed>& entries() { return entries_; }

  std::vector<char> encode() const {
    std::vector<char> buffer(used_);
    size_t at = 0;
    for (const Listed& listed : entries_) {
      char* to = buffer.data() + at;
      const size_t left = buffer.size() - at;
      const auto cookie = static_cast<off_t>(ListingBounds::offset_of(number_, listed.cookie));
      fuse_entry_param entry = entry_of(listed.node);
      if (!listed.held) entry.ino = 0;  // no reference: the kernel looks it up when it needs it
      at += plus_ ? fuse_add_direntry_plus(request_, to, left, listed.name.c_str(), &entry, cookie)
                  : fuse_add_direntry(request_, to, left, listed.name.c_str(), &entry.attr, cookie);
    }
    return buffer;
  }

 private:
  fuse_req_t request_;
  const size_t room_;
  const uint64_t number_;
  const bool plus_;
  size_t used_ = 0;
  std::vector<Listed> entries_;
};

Error list_children(const index::Index& index, fuse_ino_t id, uint64_t cookie, uint64_t bound,
                    Listing& listing) {
  const auto directory = index.find(id);
  if (directory == nullptr) return {ENOENT, ""};
  if (!S_ISDIR(directory->attributes.mode)) return {ENOTDIR, ""};
  if (cookie < kDotCookie && !listing.add(kDotCookie, ".", node_of(*directory), false)) {
    return {0, ""};
  }
  if (cookie < kDotDotCookie) {
    const auto name = index.first_name(*directory);
    auto parent = name != nullptr ? index.find(name->parent) : directory;
    if (parent == nullptr) parent = directory;
    if (!listing.add(kDotDotCookie, "..", node_of(*parent), false)) return {0, ""};
  }
  uint64_t after = std::max(cookie, kDotDotCookie);
  while (const auto name = index.next_child(*directory, after)) {
    after = name->cookie;
    if (after >= bound) break;
    const auto inode = index.find(name->inode);
    if (inode == nullptr) continue;
    if (!listing.add(name->cookie, std::string(name->name), node_of(*inode), true)) break;
    if (listing.entries().back().held) Store::hold(*inode);
  }
  return {0, ""};
}

void list_virtual(uint64_t cookie, Listing& listing) {
  Node node;
  node.id = VirtualFiles::kDirectoryId;
  node.attributes.mode = S_IFDIR;
  if (cookie < kDotCookie) listing.add(kDotCookie, ".", node, false);
  if (cookie < kDotDotCookie) listing.add(kDotDotCookie, "..", node, false);
  node.attributes.mode = S_IFREG;
  for (const auto& listed : VirtualFiles::list()) {
    if (listed.cookie > cookie) listing.add(listed.cookie, std::string(listed.name), node, false);
  }
}

void list(fuse_req_t request, fuse_ino_t inode, size_t room, off_t offset, bool plus) {
  auto& parts = Operations::begin(request, plus ? Request::kReaddirplus : Request::kReaddir);
  const auto from = static_cast<uint64_t>(offset);
  const uint64_t cookie = ListingBounds::cookie_of(from);
  const uint64_t number = from == 0 ? parts.listing_bounds.begin(parts.store.next_object())
                                    : ListingBounds::number_of(from);
  const uint64_t known = parts.listing_bounds.bound(number);
  const uint64_t bound = known != 0 ? known : UINT64_MAX;
  Listing listing(request, room, number, plus);
  if (VirtualFiles::is_virtual(inode)) {
    list_virtual(cookie, listing);
  } else {
    Error error{0, ""};
    parts.store.read_index([&](const index::Index& index) {
      error = list_children(index, inode, cookie, bound, listing);
    });
    if (error.code != 0) return Operations::reply_error(request, error);
    for (Listed& listed : listing.entries()) {
      if (listed.node.attributes.blob != 0 && plus) {
        listed.node.stored = parts.store.stored_bytes(listed.node.id);
      }
    }
  }
  const auto buffer = listing.encode();
  if (fuse_reply_buf(request, buffer.data(), buffer.size()) == 0) return;
  for (const Listed& listed : listing.entries()) {
    if (listed.held) parts.store.release(listed.node.id, 1);
  }
}

void on_readdir(fuse_req_t request, fuse_ino_t inode, size_t room, off_t offset, fuse_file_info*) {
  list(request, inode, room, offset, false);
}

void on_readdirplus(fuse_req_t request, fuse_ino_t inode, size_t room, off_t offset,
                    fuse_file_info*) {
  list(request, inode, room, offset, true);
}

void on_opendir(fuse_req_t request, fuse_ino_t, fuse_file_info*) {
  Operations::begin(request, Request::kOpendir);
  fuse_reply_err(request, ENOSYS);
}

// fsync of any directory commits everything: this is what `sync MOUNTPOINT` sends (P4).
void on_fsyncdir(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
  auto& parts = Operations::begin(request, Request::kFsyncdir);
  parts.store.sync(0,
                   [request](const Status& status) { Operations::reply_status(request, status); });
}

}  // namespace

void Operations::add_directories(fuse_lowlevel_ops& table) {
  table.opendir = on_opendir;
  table.readdir = on_readdir;
  table.readdirplus = on_readdirplus;
  table.fsyncdir = on_fsyncdir;
}

}  // namespace valfs::fs
