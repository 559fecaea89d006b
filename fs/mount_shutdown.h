// Ending a mount that may still be in use (promise P11).
#pragma once

#include <chrono>

#include "engine/store.h"
#include "fs/session.h"

namespace valfs::fs {

// Commits, takes the mount out of the tree, and waits up to `patience` for the last user to let go.
// Then commits again, names the holders in the log, and ends the connection under them. When this
// returns, Session::serve() is over; closing the store is left to whoever runs it.
void shut_down(Store& store, Session& session, std::chrono::milliseconds patience);

}  // namespace valfs::fs
