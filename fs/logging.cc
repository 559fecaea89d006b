#include "fs/logging.h"

#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/sinks/systemd_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

namespace valfs::fs {
namespace {

constexpr const char* kJournalSocket = "/run/systemd/journal/socket";
constexpr const char* kFileName = "valfs.log";
constexpr size_t kFileSize = size_t{1} << 20;
constexpr size_t kOldFiles = 1;

Status check_directory_of(const std::string& file) {
  // spdlog would make it.
  const std::string directory = file.substr(0, std::max<size_t>(file.rfind('/'), 1));
  if (::access(directory.c_str(), F_OK) == 0) return {};
  return fail(errno,
              "cannot log to " + file + ": directory " + directory + ": " + std::strerror(errno));
}

spdlog::sink_ptr make_sink(const LogDestination& destination) {
  switch (destination.kind) {
    case LogDestination::Kind::kJournal:
      return std::make_shared<spdlog::sinks::systemd_sink_mt>("valfs");
    case LogDestination::Kind::kFile:
      return std::make_shared<spdlog::sinks::rotating_file_sink_mt>(destination.file, kFileSize,
                                                                    kOldFiles);
    case LogDestination::Kind::kStderr:
      break;
  }
  return std::make_shared<spdlog::sinks::stderr_sink_mt>();
}

}  // namespace

LogDestination choose_log(const std::string& wanted, bool foreground, const std::string& data) {
  using Kind = LogDestination::Kind;
  if (wanted == "journal") return {Kind::kJournal, ""};
  if (wanted == "stderr" || (wanted.empty() && foreground)) return {Kind::kStderr, ""};
  if (!wanted.empty()) return {Kind::kFile, wanted};
  if (::access(kJournalSocket, F_OK) == 0) return {Kind::kJournal, ""};
  return {Kind::kFile, data + "/" + kFileName};
}

Status start_logging(const LogDestination& destination, bool verbose) {
  if (destination.kind == LogDestination::Kind::kFile) {
    if (auto checked = check_directory_of(destination.file); !checked) {
      spdlog::default_logger()->sinks().clear();
      return checked;
    }
  }
  try {
    auto logger = std::make_shared<spdlog::logger>("valfs", make_sink(destination));
    logger->set_level(verbose ? spdlog::level::debug : spdlog::level::info);
    logger->flush_on(spdlog::level::info);  // messages are rare, and somebody waits for them
    if (destination.kind == LogDestination::Kind::kStderr)
      logger->set_pattern("valfs: %v");
    else
      logger->set_pattern("%Y-%m-%d %H:%M:%S.%e [%P] %l: %v");
    spdlog::set_default_logger(std::move(logger));
  } catch (const spdlog::spdlog_ex& error) {
    spdlog::default_logger()->sinks().clear();
    return fail(EIO, "cannot log to " + describe(destination) + ": " + error.what());
  }
  return {};
}

bool logs_to_stderr() {
  const auto& sinks = spdlog::default_logger()->sinks();
  return std::any_of(sinks.begin(), sinks.end(), [](const spdlog::sink_ptr& sink) {
    return dynamic_cast<spdlog::sinks::stderr_sink_mt*>(sink.get()) != nullptr;
  });
}

std::string describe(const LogDestination& destination) {
  switch (destination.kind) {
    case LogDestination::Kind::kJournal:
      return "the journal";
    case LogDestination::Kind::kFile:
      return destination.file;
    case LogDestination::Kind::kStderr:
      break;
  }
  return "stderr";
}

}  // namespace valfs::fs
