#include <fuse_lowlevel.h>

#include <CLI/CLI.hpp>
#include <cstring>
#include <exception>
#include <string>

#include "fs/command.h"

namespace {

std::string version() {
  return "valfs " VALFS_VERSION " (libfuse " + std::string(fuse_pkgversion()) + ")";
}

int run(int count, char** arguments) {
  using namespace valfs::fs;
  if (const Helper helper = find_mount_helper(arguments[0]); helper != nullptr)
    return helper(count, arguments);
  // mount.fuse3, where our own helper is not installed, calls: valfs DATA MOUNTPOINT -o ...
  if (count > 2 && std::strchr(arguments[1], '/') != nullptr)
    return find_mount_helper("mount.valfs")(count, arguments);
  CLI::App app("A filesystem of values in a write-ahead log", "valfs");
  app.set_version_flag("--version", version());
  app.require_subcommand(1);
  app.footer("valfs COMMAND --help tells more about a command.");
  Action chosen;
  add_mount_command(app, chosen);
  add_umount_command(app, chosen);
  add_control_commands(app, chosen);
  add_stats_command(app, chosen);
  add_fsck_command(app, chosen);
  add_scrub_command(app, chosen);
  add_dump_command(app, chosen);
  add_salvage_command(app, chosen);
  return parse_and_run(app, chosen, count, arguments);
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run(count, arguments);
  } catch (const std::exception& error) {  // of the libraries: out of memory, mostly
    valfs::fs::complain(error.what());
    return valfs::fs::kSystemError;
  }
}
