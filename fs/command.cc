#include "fs/command.h"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>

namespace valfs::fs {

int exit_status(const Error& error, int otherwise) {
  switch (error.code) {
    case EACCES:
    case EPERM:
      return kWrongCall;
    case ENOMEM:
    case EAGAIN:
    case EMFILE:
    case ENFILE:
      return kSystemError;
    default:
      return otherwise;
  }
}

int complain(const Error& error, int otherwise) {
  complain(error.what);
  return exit_status(error, otherwise);
}

Result<MountEntry> find_valfs_mount(const std::string& path) {
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr)
    return fail(errno, path + ": " + std::strerror(errno));
  VALFS_ASSIGN(const MountTable table, MountTable::read());
  const MountEntry* entry = table.find(resolved);
  if (entry != nullptr && entry->is_valfs()) return *entry;
  std::string text = path + " is not a valfs mount point";
  if (const MountEntry* around = table.find_around(resolved); around != nullptr)
    text += "; it lies in the one on " + around->mountpoint;
  return fail(EINVAL, text);
}

int parse_and_run(CLI::App& app, const Action& chosen, int count, char** arguments) {
  try {
    app.parse(count, arguments);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    std::string help = "valfs";
    for (const CLI::App* command : app.get_subcommands()) help += " " + command->get_name();
    const std::vector<std::string> unknown = app.remaining();
    const bool no_command = app.get_subcommands().empty() && !unknown.empty();
    complain((no_command ? "unknown command or option \"" + unknown.front() + "\""
                         : std::string(error.what())) +
             "; see: " + help + " --help");
    const auto commands = app.get_subcommands();
    const bool checks = !commands.empty() && (commands.front()->get_name() == "fsck" ||
                                              commands.front()->get_name() == "scrub");
    return checks ? static_cast<int>(kUsageError) : kWrongCall;
  }
  return chosen();
}

}  // namespace valfs::fs
