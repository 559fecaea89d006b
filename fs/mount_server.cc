#include "fs/mount_server.h"

#include <spdlog/spdlog.h>
#include <sys/statvfs.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>
#include <utility>

#include "engine/storage/kernel_storage.h"
#include "engine/store.h"
#include "fs/command.h"
#include "fs/data_directory.h"
#include "fs/file_system.h"
#include "fs/json.h"
#include "fs/mount_shutdown.h"
#include "fs/mount_signals.h"
#include "fs/mount_table.h"
#include "fs/session.h"

namespace valfs::fs {
namespace {

StoreOptions store_options(const MountPlan& plan) {
  StoreOptions options;
  options.max_log_file = plan.options.log_file;
  options.compression = plan.options.compression;
  options.cache = plan.options.cache;
  options.commit = plan.options.commit;
  options.capacity = plan.options.size;
  options.create = true;
  options.root_uid = ::geteuid();
  options.root_gid = ::getegid();
  return options;
}

std::string free_space(const std::string& directory) {
  struct statvfs found {};
  if (::statvfs(directory.c_str(), &found) != 0) return "";
  return directory + " has " + std::to_string(found.f_bavail * found.f_frsize / kMiB) + " MiB free";
}

// Adds what the user wants to know next.
std::string explain(const Error& error, const MountPlan& plan, const StoreOptions& options) {
  std::string text = error.what;
  if (text.find(plan.data) == std::string::npos) text = plan.data + ": " + text;
  if (error.code == EBUSY) {
    const auto table = MountTable::read();
    const MountEntry* mount = table ? table->find_source(plan.source()) : nullptr;
    if (mount != nullptr)
      text += ", mounted on " + mount->mountpoint + "; unmount it with: valfs umount " +
              mount->mountpoint;
  } else if (error.code == ENOSPC) {
    const uint64_t staging = options.slots * options.slot_size / kMiB;
    text += "; a mount needs " + std::to_string(staging) + " MiB to stage writes, and a log file" +
            " of 16 MiB or more; " + free_space(plan.data);
    if (plan.by_root) text += ", " + free_space(kStagingOfRoot);
  }
  return text;
}

Result<std::unique_ptr<Store>> open_store(const MountPlan& plan, const StoreOptions& options) {
  ::sd_notify(0, "STATUS=opening the store, replaying the log");
  storage::KernelStorageOptions storage_options;
  storage_options.data_directory = plan.data;
  if (plan.by_root) storage_options.staging_directory = kStagingOfRoot;
  VALFS_ASSIGN(auto storage, storage::open_kernel_storage(storage_options));
  return Store::open(std::move(storage), options);
}

std::string ready_text(const MountPlan& plan) {
  return plan.data + (plan.new_volume ? " (a new volume)" : "") + " is mounted on " +
         plan.mountpoint + " (pid " + std::to_string(::getpid()) +
         "); unmount with: valfs umount " + plan.mountpoint;
}

void report_numbers(const Store& store) {
  const StoreStats stats = store.stats();
  const OrderedJson numbers{{"volume", stats.volume},
                            {"epoch", stats.epoch},
                            {"io", stats.io},
                            {"inodes", stats.inodes},
                            {"live_bytes", stats.live_bytes},
                            {"dead_bytes", stats.dead_bytes},
                            {"log_files", stats.log_files},
                            {"log_bytes", stats.log_bytes},
                            {"blob_bytes", stats.blob_bytes},
                            {"available_bytes", stats.available_bytes},
                            {"undurable_ms", stats.undurable_ms},
                            {"failure", stats.failure}};
  spdlog::info("stats {}", numbers.dump(-1, ' ', false, OrderedJson::error_handler_t::replace));
}

// Mounts and answers requests until the mount is gone. The store stays open.
Status serve(const MountPlan& plan, Store& store, MountSignals& signals, StartReport& report) {
  FileSystemOptions options;
  options.check_permissions = plan.options.default_permissions;
  options.data_directory = plan.data;
  options.mountpoint = plan.mountpoint;
  options.mount_options = plan.options.text;
  FileSystem file_system(store, options, [&] { report.ready(ready_text(plan)); });
  VALFS_ASSIGN(const auto session, Session::mount(plan, file_system));
  if (const auto notice = session->channel().notice(); !notice.empty()) report.notice(notice);
  signals.set_handlers({[&] { shut_down(store, *session, plan.options.stop_timeout); },
                        [&] { report_numbers(store); }});
  Status served = session->serve();
  signals.set_handlers({});
  file_system.finish();  // who is still answered needs the session
  return served;
}

}  // namespace

int serve_mount(const MountPlan& plan, StartReport& report) {
  const auto signals = MountSignals::take();
  if (!signals) {
    report.failed(kSystemError, signals.error().what);
    return kSystemError;
  }
  for (const std::string& notice : plan.notices) report.notice(notice);
  const StoreOptions options = store_options(plan);
  auto store = open_store(plan, options);
  if (!store) {
    const int status = exit_status(store.error(), kMountFailed);
    report.failed(status, explain(store.error(), plan, options));
    return status;
  }
  for (const std::string& warning : (*store)->recovery_warnings()) report.notice(warning);

  int status = kSuccess;
  if (auto served = serve(plan, **store, **signals, report); !served) {
    status = exit_status(served.error(), kMountFailed);
    report.failed(status, served.error().what);
  }
  ::sd_notify(0, "STOPPING=1\nSTATUS=committing");
  if (auto closed = (*store)->close(); !closed) {
    spdlog::critical("{}: not everything could be made durable: {}", plan.data,
                     closed.error().what);
    return kSystemError;
  }
  if (status == kSuccess)
    spdlog::info("{} is unmounted from {}; everything is durable", plan.data, plan.mountpoint);
  return status;
}

}  // namespace valfs::fs
