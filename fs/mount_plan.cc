#include "fs/mount_plan.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <utility>

#include "fs/backing.h"
#include "fs/mount_detach.h"
#include "fs/mount_owner.h"
#include "fs/mount_table.h"

namespace valfs::fs {
namespace {

namespace files = std::filesystem;

// Absolute and without symbolic links. Asks no file system about the last name itself.
Result<std::string> resolve(const std::string& path) {
  char resolved[PATH_MAX];
  if (path.empty()) return fail(ENOENT, "the empty path does not exist");
  if (::realpath(path.c_str(), resolved) == nullptr)
    return fail(errno, path + ": " + std::strerror(errno));
  return std::string(resolved);
}

// The path as it will be once its last name has been made.
Result<std::string> resolve_parent(const std::string& path) {
  files::path plain = files::path(path).lexically_normal();
  if (!plain.has_filename()) plain = plain.parent_path();  // "name/"
  const std::string parent = plain.has_parent_path() ? plain.parent_path().string() : ".";
  auto resolved = resolve(parent);
  if (!resolved)
    return fail(resolved.error().code, "data directory " + path + " cannot be made: " + parent +
                                           " does not exist; create it with: mkdir -p " + parent);
  return (*resolved == "/" ? "" : *resolved) + "/" + plain.filename().string();
}

// --- mount point ---

Result<std::string> resolve_mountpoint(const std::string& path) {
  auto resolved = resolve(path);
  if (resolved) return resolved;
  switch (resolved.error().code) {
    case ENOENT:
      return fail(ENOENT,
                  "mount point " + path + " does not exist; create it with: mkdir -p " + path);
    case ENOTDIR:
      return fail(ENOTDIR, "mount point " + path + " is not a directory");
    case EACCES:
      return fail(EACCES, "mount point " + path + " is not accessible: permission denied");
    default:
      return fail(resolved.error().code, "mount point " + resolved.error().what);
  }
}

// A mount that is there already, seen without touching it.
Status clear_mountpoint(MountPlan& plan) {
  VALFS_ASSIGN(const MountTable table, MountTable::read());
  const MountEntry* mount = table.find(plan.mountpoint);
  if (mount == nullptr || !mount->is_valfs()) return {};
  if (!is_dead(*mount))
    return fail(EBUSY, plan.mountpoint + " is a valfs mount point already (of " + mount->source +
                           "); unmount it with: valfs umount " + plan.mountpoint);
  VALFS_TRY(detach_mount(plan.mountpoint, Detach::kLazily));
  plan.notices.push_back("detached the dead mount of " + mount->source + " on " + plan.mountpoint +
                         ", whose daemon is gone");
  return {};
}

Status check_mountpoint(const MountPlan& plan) {
  struct stat found {};
  if (::stat(plan.mountpoint.c_str(), &found) != 0)
    return fail(errno,
                "mount point " + plan.mountpoint + " is not accessible: " + std::strerror(errno));
  if (!S_ISDIR(found.st_mode))
    return fail(ENOTDIR, "mount point " + plan.mountpoint + " is not a directory");
  // fusermount3 will ask for the same.
  if (!plan.by_root && ::access(plan.mountpoint.c_str(), W_OK) != 0)
    return fail(EACCES,
                "no permission to mount on " + plan.mountpoint + ": it is not writable for you");
  return {};
}

// --- data directory ---

// Names that do not speak against making a volume: what a mount that failed may have left, logs,
// and what mkfs makes.
bool is_harmless(const std::string& name) {
  constexpr std::string_view own[] = {"lock", "staging",    "wal",       "bin",
                                      "gc",   "checkpoint", "lost+found"};
  return name.starts_with("valfs.log") || name.starts_with("super") ||
         std::find(std::begin(own), std::end(own), name) != std::end(own);
}

Status check_content(MountPlan& plan) {
  if (::access((plan.data + "/super").c_str(), F_OK) == 0) return {};
  plan.new_volume = true;
  std::error_code error;
  files::directory_iterator entry(plan.data, error);
  for (const files::directory_iterator end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename();
    if (!is_harmless(name))
      return fail(ENOTEMPTY, plan.data +
                                 " is not a valfs data directory, and not empty (it holds " + name +
                                 "); give an empty or a new directory");
  }
  if (error) return fail(error.value(), "cannot list " + plan.data + ": " + error.message());
  return {};
}

Status check_data(MountPlan& plan) {
  struct stat found {};
  if (::stat(plan.data.c_str(), &found) != 0)
    return fail(errno, "data directory " + plan.data + ": " + std::strerror(errno));
  if (!S_ISDIR(found.st_mode)) return fail(ENOTDIR, plan.data + " is not a directory");
  if (::access(plan.data.c_str(), R_OK | W_OK | X_OK) != 0) {
    const int error = errno;
    return fail(error, "data directory " + plan.data +
                           (error == EACCES ? ": no permission to read and write it"
                                            : std::string(": ") + std::strerror(error)));
  }
  VALFS_TRY(check_content(plan));
  // Whoever may write the data could put a set-user-id program of root into it.
  const bool trusted = plan.by_root && found.st_uid == 0;
  if (plan.by_root && !trusted && !(plan.options.nosuid && plan.options.nodev))
    plan.notices.push_back(plan.data + " does not belong to root: mounting nosuid,nodev");
  plan.options.nosuid |= !trusted;
  plan.options.nodev |= !trusted;
  return {};
}

Status make_data(MountPlan& plan) {
  if (::mkdir(plan.data.c_str(), 0700) == 0) return {};
  return fail(errno, "cannot make data directory " + plan.data + ": " + std::strerror(errno));
}

// --- both ---

// Also where a bind mount shows a directory at a second path.
bool is_ancestor_or_same(const std::string& directory, const std::string& path) {
  struct stat wanted {};
  if (::stat(directory.c_str(), &wanted) != 0) return false;
  for (files::path at = path;; at = at.parent_path()) {
    struct stat found {};
    if (::stat(at.c_str(), &found) == 0 && found.st_dev == wanted.st_dev &&
        found.st_ino == wanted.st_ino)
      return true;
    if (at == at.parent_path()) return false;
  }
}

Status check_apart(const MountPlan& plan) {
  const std::string& data = plan.data;
  const std::string& mountpoint = plan.mountpoint;
  const bool over = is_ancestor_or_same(mountpoint, data);
  const bool under = is_ancestor_or_same(data, mountpoint);
  if (over && under)
    return fail(EINVAL, "data directory and mount point are the same, " + data +
                            "; a mount cannot cover its own data");
  if (over)
    return fail(EINVAL, "data directory " + data + " lies inside mount point " + mountpoint +
                            "; a mount cannot cover its own data");
  if (under)
    return fail(EINVAL, "mount point " + mountpoint + " lies inside data directory " + data +
                            "; choose one outside of it");
  return {};
}

Status check_fuse() {
  if (::access("/dev/fuse", F_OK) != 0)
    return fail(ENODEV, "there is no /dev/fuse; load the kernel's module with: modprobe fuse");
  // fusermount3 opens it as the user who calls it.
  if (::access("/dev/fuse", R_OK | W_OK) != 0)
    return fail(EACCES, std::string("cannot use /dev/fuse: ") + std::strerror(errno) +
                            "; root may allow it to all with: chmod 666 /dev/fuse");
  return {};
}

}  // namespace

Result<MountPlan> plan_mount(const std::string& data, const std::string& mountpoint,
                             const MountOptions& options) {
  MountPlan plan;
  plan.options = options;
  plan.by_root = ::geteuid() == 0;
  VALFS_TRY(check_fuse());
  VALFS_ASSIGN(plan.mountpoint, resolve_mountpoint(mountpoint));
  VALFS_TRY(clear_mountpoint(plan));
  VALFS_TRY(check_mountpoint(plan));
  auto resolved = resolve(data);
  const bool missing = !resolved && resolved.error().code == ENOENT && !data.empty();
  if (missing) resolved = resolve_parent(data);
  if (!resolved)
    return fail(resolved.error().code,
                missing ? resolved.error().what : "data directory " + resolved.error().what);
  plan.data = *resolved;
  if (missing) {
    // Compared as names, since there is nothing yet to look at.
    if (is_ancestor_or_same(plan.mountpoint, files::path(plan.data).parent_path()))
      return fail(EINVAL, "data directory " + plan.data + " would lie inside mount point " +
                              plan.mountpoint + "; a mount cannot cover its own data");
    VALFS_TRY(make_data(plan));
  }
  VALFS_TRY(check_apart(plan));
  VALFS_TRY(check_data(plan));
  if (std::string weakness = weakness_of(plan.data); !weakness.empty()) {
    plan.notices.push_back(std::move(weakness));
  }
  return plan;
}

}  // namespace valfs::fs
