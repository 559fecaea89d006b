// valfs scrub: reads everything in a volume and checks it, mounted or not.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "engine/inspect/scrub.h"
#include "fs/command.h"
#include "fs/command_words.h"
#include "fs/data_directory.h"
#include "fs/tool_output.h"

namespace valfs::fs {
namespace {

struct ScrubCall {
  std::string path;
  uint64_t rate = 0;
};

int scrub_mounted(const std::string& mountpoint, const ScrubCall& call) {
  const std::string word = call.rate == 0 ? "scrub" : "scrub rate=" + std::to_string(call.rate);
  const Status done = run_with_progress(mountpoint, word);
  if (!done && done.error().code != EUCLEAN) {
    complain(done.error().what);
    return kOperationalError;
  }
  std::fputs(read_control(mountpoint).c_str(), stdout);
  return done ? kClean : kUncorrected;
}

int scrub_data(const ScrubCall& call) {
  const auto data = open_data_directory(call.path);
  if (!data) {
    complain(data.error().what);
    return kOperationalError;
  }
  const auto lock = data->storage->lock_to_look();
  if (!lock) {
    const auto table = MountTable::read();
    const MountEntry* mount = table ? table->find_source(data->path) : nullptr;
    if (lock.error().code == EBUSY && mount != nullptr) {
      return scrub_mounted(mount->mountpoint, call);
    }
    complain(explain_lock(lock.error(), data->path).what);
    return kOperationalError;
  }
  inspect::Scrubber scrubber;
  std::atomic<bool> over{false};
  std::mutex mutex;
  std::condition_variable changed;
  std::thread watcher([&] {
    ProgressBar bar(false);
    std::unique_lock wait(mutex);
    while (!changed.wait_for(wait, std::chrono::milliseconds(200), [&] { return over.load(); })) {
      const auto progress = scrubber.progress();
      bar.show({"scrub", progress.bytes_done, progress.bytes_total});
    }
  });
  const auto done = inspect::scrub_volume(*data->storage, scrubber, call.rate);
  {
    const std::lock_guard wait(mutex);
    over = true;
  }
  changed.notify_all();
  watcher.join();
  if (!done) {
    complain(done.error().what);
    return kOperationalError;
  }
  std::fputs(text_of(*done).c_str(), stdout);
  return done->damaged == 0 ? kClean : kUncorrected;
}

int run_scrub(const ScrubCall& call) {
  if (const auto mount = find_valfs_mount(call.path)) return scrub_mounted(mount->mountpoint, call);
  return scrub_data(call);
}

}  // namespace

void add_scrub_command(CLI::App& app, Action& chosen) {
  auto call = std::make_shared<ScrubCall>();
  CLI::App* command = app.add_subcommand(
      "scrub", "Read everything in a volume and check it, mounted or not; returns when it is done");
  command->add_option("PATH", call->path, "A mount point, or a data directory")->required();
  command->add_option("--rate", call->rate, "At most so many bytes a second: 50m; 0: no limit")
      ->transform(CLI::AsSizeValue(false));
  command->footer(
      "Checks the records and payloads of all log files, the checkpoint, and large values against\n"
      "their chunk sums, and names each damaged value with its path. Of a mounted volume the\n"
      "daemon does it beside its work; `cat MOUNTPOINT/.valfs/control` shows how far it is, and\n"
      "`echo scrub stop > MOUNTPOINT/.valfs/control` ends it.\n\n"
      "Exit status: 0 all is well, 4 something is damaged, 8 could not check, 16 wrong call.");
  command->callback([call, &chosen] { chosen = [call] { return run_scrub(*call); }; });
}

}  // namespace valfs::fs
