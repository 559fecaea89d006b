// valfs salvage: gets out what the records of a log hold, when nothing else is left.
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "fs/command.h"
#include "fs/data_directory.h"
#include "fs/salvage_writer.h"

namespace valfs::fs {
namespace {

struct SalvageCall {
  std::string data;
  std::string target;
};

// Makes the target if it is missing; it must be empty, and not in the data directory.
Result<std::string> prepare_target(const std::string& path, const std::string& data) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail(errno, path + ": " + std::strerror(errno));
  }
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) {
    return fail(errno, path + ": " + std::strerror(errno));
  }
  if (lies_in(resolved, data)) return fail(EINVAL, path + " lies in the data directory");
  std::error_code error;
  const bool empty = std::filesystem::is_empty(resolved, error);
  if (error) return fail(error.value(), path + ": " + error.message());
  if (!empty) return fail(ENOTEMPTY, path + " is not empty; give an empty or a new directory");
  return std::string(resolved);
}

int run_salvage(const SalvageCall& call) {
  const auto data = open_data_directory(call.data);
  if (!data) return complain(data.error(), kWrongCall);
  const auto target = prepare_target(call.target, data->path);
  if (!target) return complain(target.error(), kWrongCall);
  const auto lock = data->storage->lock_to_look();
  if (!lock) return complain(explain_lock(lock.error(), data->path), kSystemError);
  const auto salvage = inspect::Salvage::read(*data->storage);
  if (!salvage) return complain(salvage.error(), kSystemError);
  SalvageWriter writer(**salvage, *target);
  if (auto written = writer.run(); !written) return complain(written.error(), kSystemError);
  const SalvageWriter::Counts& counts = writer.counts();
  std::printf(
      "%s: %llu files, %llu directories, %llu links, %llu bytes from %zu log files; %llu damaged, "
      "%llu without a place. See %s/salvage-report.jsonl\n",
      call.target.c_str(), static_cast<unsigned long long>(counts.files),
      static_cast<unsigned long long>(counts.directories),
      static_cast<unsigned long long>(counts.links), static_cast<unsigned long long>(counts.bytes),
      (*salvage)->log_files(), static_cast<unsigned long long>(counts.damaged),
      static_cast<unsigned long long>(counts.unplaced), target->c_str());
  return counts.damaged > 0 || !(*salvage)->damages().empty() ? static_cast<int>(kUncorrected)
                                                              : static_cast<int>(kSuccess);
}

}  // namespace

void add_salvage_command(CLI::App& app, Action& chosen) {
  auto call = std::make_shared<SalvageCall>();
  CLI::App* command = app.add_subcommand(
      "salvage", "Write out the files of a volume that cannot be mounted any more");
  command->add_option("DATA", call->data, "The data directory, or whatever holds its log files")
      ->required();
  command->add_option("TARGET", call->target, "Where to: an empty or new directory, elsewhere")
      ->required();
  command->footer(
      "Reads every log file below DATA, wherever it lies and whatever of it is damaged, and the\n"
      "files of large values (bin/); superblock, checkpoint and headers are not needed. DATA is\n"
      "not changed. Files come with owner, mode and times where a record still knows them; what\n"
      "has lost its place goes to TARGET/lost+found. A value of which a part is damaged is "
      "written\n"
      "as far as it is good, the rest is a hole. TARGET/salvage-report.jsonl lists every damaged\n"
      "value and stretch.\n\n"
      "Exit status: 0 everything was whole, 1 wrong call, 2 could not read or write, 4 something "
      "is\n"
      "damaged: see the report.");
  command->callback([call, &chosen] { chosen = [call] { return run_salvage(*call); }; });
}

}  // namespace valfs::fs
