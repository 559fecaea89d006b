// valfs mount
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <utility>

#include "fs/command.h"
#include "fs/logging.h"
#include "fs/mount_options.h"
#include "fs/mount_plan.h"
#include "fs/mount_server.h"

namespace valfs::fs {
namespace {

// Runs in the process that is going to serve.
int start_serving(const MountCall& call, const MountPlan& plan, StartReport& report) {
  const LogDestination log = choose_log(plan.options.log, call.foreground, plan.data);
  if (auto started = start_logging(log, call.verbose); !started) {
    const int status = exit_status(started.error(), kMountFailed);
    report.failed(status, started.error().what);
    return status;
  }
  return serve_mount(plan, report);
}

}  // namespace

int run_mount(const MountCall& call) {
  const auto options =
      parse_mount_options(call.options, ::geteuid() == 0,
                          call.sloppy ? UnknownOptions::kIgnore : UnknownOptions::kRefuse);
  if (!options) return complain(options.error(), kWrongCall);
  if (options->log == "stderr" && !call.foreground) {
    complain("option log=stderr needs -f: a daemon lets go of its terminal");
    return kWrongCall;
  }
  auto plan = plan_mount(call.data, call.mountpoint, *options);
  if (!plan) return complain(plan.error(), plan.error().code == EINVAL ? kWrongCall : kMountFailed);
  if (call.fake) return kSuccess;
  const auto serve = [&](StartReport& report) { return start_serving(call, *plan, report); };
  return call.foreground ? run_in_foreground(serve) : run_in_background(serve);
}

void add_mount_command(CLI::App& app, Action& chosen) {
  auto call = std::make_shared<MountCall>();
  CLI::App* command = app.add_subcommand("mount", "Mount a data directory");
  command
      ->add_option("DATA", call->data,
                   "Where values are kept; made if it is missing, a new volume if it is empty")
      ->required();
  command->add_option("MOUNTPOINT", call->mountpoint, "An existing directory")->required();
  command
      ->add_option("-o", call->options,
                   "Options, separated by commas, see below; may be given again")
      ->type_name("LIST")
      ->allow_extra_args(false);
  command->add_flag("-f,--foreground", call->foreground, "Stay in the foreground (for systemd)");
  command->add_flag("-v,--verbose", call->verbose, "Log more");
  command->footer(describe_mount_options() +
                  "\n\nExit status: 0 mounted, 1 wrong call or no permission, 2 system error, "
                  "32 mount failed.\nSIGTERM commits, unmounts and ends the daemon; SIGUSR1 logs "
                  "its numbers.");
  command->callback([call, &chosen] { chosen = [call] { return run_mount(*call); }; });
}

}  // namespace valfs::fs
