// Where messages go: spdlog's default logger, which engine and fs write to.
#pragma once

#include <string>

#include "engine/base/status.h"

namespace valfs::fs {

struct LogDestination {
  enum class Kind { kStderr, kJournal, kFile } kind = Kind::kStderr;
  std::string file;  // absolute
};

// `wanted` is the value of the mount option log. Without one a foreground process writes to stderr;
// a daemon to the journal, where there is one, or else to a file in the data directory.
LogDestination choose_log(const std::string& wanted, bool foreground, const std::string& data);

// Makes the default logger. If that fails, what is logged from now on goes nowhere.
Status start_logging(const LogDestination& destination, bool verbose);

// Messages already show on the terminal.
bool logs_to_stderr();

// For messages: where to look ("the journal", a path).
std::string describe(const LogDestination& destination);

}  // namespace valfs::fs
