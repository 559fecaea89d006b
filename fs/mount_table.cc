#include "fs/mount_table.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

namespace valfs::fs {
namespace {

constexpr size_t kDeviceField = 2;
constexpr size_t kMountpointField = 4;
constexpr size_t kFirstOptionalField = 6;

std::vector<std::string_view> split(std::string_view line, char separator) {
  std::vector<std::string_view> fields;
  for (size_t start = 0; start <= line.size();) {
    const size_t end = std::min(line.find(separator, start), line.size());
    if (end > start) fields.push_back(line.substr(start, end - start));
    start = end + 1;
  }
  return fields;
}

bool is_octal(std::string_view digits) {
  return digits.size() == 3 && digits[0] <= '3' &&
         std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '7'; });
}

// The kernel writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view field) {
  std::string text;
  for (size_t i = 0; i < field.size(); ++i) {
    const std::string_view digits = field.substr(i + 1, 3);
    if (field[i] != '\\' || !is_octal(digits)) {
      text += field[i];
      continue;
    }
    text += static_cast<char>((digits[0] - '0') * 64 + (digits[1] - '0') * 8 + (digits[2] - '0'));
    i += digits.size();
  }
  return text;
}

std::optional<unsigned> parse_number(std::string_view text) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<DeviceNumber> parse_device(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  const auto major = parse_number(text.substr(0, colon));
  const auto minor = parse_number(text.substr(colon + 1));
  if (!major || !minor) return std::nullopt;
  return DeviceNumber{*major, *minor};
}

// "36 35 98:0 /root /mountpoint options [tag:value ...] - type source super-options"
std::optional<MountEntry> parse_line(std::string_view line) {
  const std::vector<std::string_view> fields = split(line, ' ');
  if (fields.size() <= kFirstOptionalField) return std::nullopt;
  const auto dash = std::find(fields.begin() + kFirstOptionalField, fields.end(), "-");
  const auto device = parse_device(fields[kDeviceField]);
  if (std::distance(dash, fields.end()) < 3 || !device) return std::nullopt;
  return MountEntry{*device, unescape(fields[kMountpointField]), unescape(dash[1]),
                    unescape(dash[2])};
}

}  // namespace

MountTable MountTable::parse(std::string_view text) {
  MountTable table;
  for (const std::string_view line : split(text, '\n'))
    if (auto entry = parse_line(line)) table.entries_.push_back(std::move(*entry));
  return table;
}

Result<MountTable> MountTable::read() {
  const char* path = "/proc/self/mountinfo";
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.empty()) return fail(EIO, std::string("cannot read ") + path);
  return parse(text);
}

const MountEntry* MountTable::find(std::string_view mountpoint) const {
  const auto found = std::find_if(entries_.rbegin(), entries_.rend(), [&](const MountEntry& entry) {
    return entry.mountpoint == mountpoint;
  });
  return found == entries_.rend() ? nullptr : &*found;
}

const MountEntry* MountTable::find_device(DeviceNumber device) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const MountEntry& entry) { return entry.device == device; });
  return found == entries_.end() ? nullptr : &*found;
}

const MountEntry* MountTable::find_source(std::string_view source) const {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const MountEntry& entry) {
    return entry.is_valfs() && entry.source == source;
  });
  return found == entries_.end() ? nullptr : &*found;
}

const MountEntry* MountTable::find_around(std::string_view path) const {
  const MountEntry* innermost = nullptr;
  for (const MountEntry& entry : entries_) {
    if (!lies_in(path, entry.mountpoint)) continue;
    if (innermost == nullptr || entry.mountpoint.size() >= innermost->mountpoint.size())
      innermost = &entry;
  }
  return innermost != nullptr && innermost->is_valfs() ? innermost : nullptr;
}

bool lies_in(std::string_view path, std::string_view directory) {
  if (directory == "/") return path.starts_with('/');
  return path.starts_with(directory) &&
         (path.size() == directory.size() || path[directory.size()] == '/');
}

}  // namespace valfs::fs
