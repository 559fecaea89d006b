#include "fs/mount_holders.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <system_error>

namespace valfs::fs {
namespace {

namespace files = std::filesystem;

constexpr size_t kMostNamed = 8;

// Where `link`, one of the magic links of /proc, leads. Asking for nothing but the device and
// without synchronization keeps the kernel from sending a GETATTR.
bool leads_to(const std::string& link, DeviceNumber device) {
  struct statx found {};
  if (::statx(AT_FDCWD, link.c_str(), AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &found) != 0)
    return false;
  return found.stx_dev_major == device.major && found.stx_dev_minor == device.minor;
}

std::vector<std::string> list(const std::string& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (files::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error))
    names.push_back(entry->path().filename());
  return names;
}

bool has_open_file(const std::string& process, DeviceNumber device) {
  for (const std::string& fd : list(process + "/fd"))
    if (leads_to(process + "/fd/" + fd, device)) return true;
  return false;
}

// Lines of maps: "from-to mode offset major:minor inode path", numbers in hexadecimal.
bool has_mapping(const std::string& process, DeviceNumber device) {
  char wanted[32];
  std::snprintf(wanted, sizeof wanted, " %02x:%02x ", device.major, device.minor);
  std::ifstream maps(process + "/maps");
  for (std::string line; std::getline(maps, line);)
    if (line.find(wanted) != std::string::npos) return true;
  return false;
}

std::string hold_of(const std::string& process, DeviceNumber device) {
  if (leads_to(process + "/cwd", device)) return "working directory";
  if (has_open_file(process, device)) return "open file";
  if (leads_to(process + "/root", device)) return "root directory";
  if (has_mapping(process, device)) return "mapped file";
  return "";
}

std::optional<pid_t> parse_pid(const std::string& name) {
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return pid;
}

std::string command_of(const std::string& process) {
  std::string name;
  std::getline(std::ifstream(process + "/comm"), name);
  return name;
}

}  // namespace

std::vector<MountHolder> find_mount_holders(DeviceNumber device) {
  std::vector<MountHolder> holders;
  for (const std::string& name : list("/proc")) {
    const auto pid = parse_pid(name);
    if (!pid) continue;
    const std::string process = "/proc/" + name;
    const std::string how = hold_of(process, device);
    if (!how.empty()) holders.push_back({*pid, command_of(process), how});
  }
  return holders;
}

std::string describe(const std::vector<MountHolder>& holders) {
  std::string text;
  for (size_t i = 0; i < holders.size() && i < kMostNamed; ++i) {
    if (i > 0) text += ", ";
    text +=
        std::to_string(holders[i].pid) + " (" + holders[i].command + ", " + holders[i].how + ")";
  }
  if (holders.size() > kMostNamed)
    text += " and " + std::to_string(holders.size() - kMostNamed) + " more";
  return text;
}

}  // namespace valfs::fs
