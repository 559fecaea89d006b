// The command `valfs`: subcommands, each in a file of its own.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "fs/daemon.h"
#include "fs/mount_table.h"

namespace CLI {
class App;
}

namespace valfs::fs {

// What a subcommand does once the command line has been read whole; gives an ExitStatus.
using Action = std::function<int()>;

// Each adds subcommands to `app`; the one that is called sets `chosen`.
void add_mount_command(CLI::App& app, Action& chosen);
void add_umount_command(CLI::App& app, Action& chosen);
void add_control_commands(CLI::App& app, Action& chosen);  // gc, sync, checkpoint, drop-caches
void add_stats_command(CLI::App& app, Action& chosen);
void add_fsck_command(CLI::App& app, Action& chosen);
void add_dump_command(CLI::App& app, Action& chosen);
void add_salvage_command(CLI::App& app, Action& chosen);
void add_scrub_command(CLI::App& app, Action& chosen);

// Exit statuses of the commands that check, as fsck(8) has them.
enum CheckStatus : int {
  kClean = 0,
  kCorrected = 1,
  kUncorrected = 4,
  kOperationalError = 8,
  kUsageError = 16,
};

// The same for the programs mount.fuse.valfs and umount.fuse.valfs, which mount(8) and umount(8)
// call with arguments of their own. Nullptr: `program` is neither.
using Helper = int (*)(int count, char** arguments);
Helper find_mount_helper(std::string_view program);

// What lies behind both ways to call.
struct MountCall {
  std::string data;
  std::string mountpoint;
  std::vector<std::string> options;
  bool foreground = false;
  bool verbose = false;
  bool sloppy = false;  // unknown options are passed over
  bool fake = false;    // check, but do not mount
};
int run_mount(const MountCall& call);

struct UmountCall {
  std::string mountpoint;
  bool force = false;
  bool lazy = false;
};
int run_umount(const UmountCall& call);

// EACCES and EPERM mean no permission, lack of memory and the like a system error; everything else
// is `otherwise`.
int exit_status(const Error& error, int otherwise);
int complain(const Error& error, int otherwise);  // says so and returns the exit status

// The valfs mount on `path`, which may lead there through symbolic links.
Result<MountEntry> find_valfs_mount(const std::string& path);

// Reads the command line; help, version and mistakes are answered at once. Gives an ExitStatus.
int parse_and_run(CLI::App& app, const Action& chosen, int count, char** arguments);

}  // namespace valfs::fs
