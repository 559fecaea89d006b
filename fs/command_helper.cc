// The programs that mount(8) and umount(8) call for file systems of type fuse.valfs.
#include <CLI/CLI.hpp>
#include <memory>
#include <string_view>

#include "fs/command.h"

namespace valfs::fs {
namespace {

// Arguments that every helper is given and that say nothing to us: mtab, namespace, type.
struct Ignored {
  bool no_mtab = false;
  std::string name_space;
  std::string type;
};

void add_ignored(CLI::App& app, Ignored& ignored) {
  app.add_flag("-n", ignored.no_mtab, "Ignored");
  app.add_option("-N", ignored.name_space, "Ignored");
  app.add_option("-t", ignored.type, "Ignored");
}

int run_mount_helper(int count, char** arguments) {
  CLI::App app("Mount helper of valfs; people use: valfs mount", "mount.fuse.valfs");
  MountCall call;
  Ignored ignored;
  bool read_only = false;
  app.add_option("DATA", call.data)->required();
  app.add_option("MOUNTPOINT", call.mountpoint)->required();
  app.add_option("-o", call.options, "Mount options")->allow_extra_args(false);
  app.add_flag("-f", call.fake, "Check, but do not mount");
  app.add_flag("-s", call.sloppy, "Pass over unknown options");
  app.add_flag("-v", call.verbose, "Log more");
  app.add_flag("-r", read_only, "Read-only");
  add_ignored(app, ignored);
  const Action action = [&] {
    if (read_only) call.options.push_back("ro");
    return run_mount(call);
  };
  return parse_and_run(app, action, count, arguments);
}

int run_umount_helper(int count, char** arguments) {
  CLI::App app("Unmount helper of valfs; people use: valfs umount", "umount.fuse.valfs");
  UmountCall call;
  Ignored ignored;
  bool verbose = false;
  bool read_only = false;
  app.add_option("MOUNTPOINT", call.mountpoint)->required();
  app.add_flag("-f", call.force, "End it under its users");
  app.add_flag("-l", call.lazy, "Do not wait");
  app.add_flag("-v", verbose, "Ignored");
  app.add_flag("-r", read_only, "Ignored");
  add_ignored(app, ignored);
  return parse_and_run(
      app, [&] { return run_umount(call); }, count, arguments);
}

}  // namespace

Helper find_mount_helper(std::string_view program) {
  const std::string_view name = program.substr(program.rfind('/') + 1);
  if (name == "mount.valfs" || name == "mount.fuse.valfs") return run_mount_helper;
  if (name == "umount.valfs" || name == "umount.fuse.valfs") return run_umount_helper;
  return nullptr;
}

}  // namespace valfs::fs
