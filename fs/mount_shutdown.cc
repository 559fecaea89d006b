#include "fs/mount_shutdown.h"

#include <spdlog/spdlog.h>
#include <systemd/sd-daemon.h>

#include "fs/mount_holders.h"

namespace valfs::fs {
namespace {

void commit(Store& store) {
  if (auto done = store.sync(); !done) spdlog::error("cannot commit: {}", done.error().what);
}

}  // namespace

void shut_down(Store& store, Session& session, std::chrono::milliseconds patience) {
  ::sd_notify(0, "STOPPING=1\nSTATUS=waiting for open files to be closed");
  commit(store);
  if (auto detached = session.detach(); !detached) spdlog::error("{}", detached.error().what);
  if (session.wait_until_served(patience)) return;
  commit(store);
  const std::string holders = describe(find_mount_holders(session.device()));
  spdlog::warn("still in use after {} ms by {}; ending the mount under them", patience.count(),
               holders.empty() ? "processes that cannot be seen from here" : holders);
  session.abort();
}

}  // namespace valfs::fs
