#include "fs/mount_options.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

namespace valfs::fs {
namespace {

constexpr uint64_t kGiB = 1024 * kMiB;
constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max();

enum class Takes { kNothing, kValue, kEither };

// What is known about one option. A name that ends in '*' stands for all that begin like it.
struct Rule {
  std::string_view name;
  Takes takes;
  Status (*apply)(MountOptions& options, std::string_view value);
  std::string_view value = "";  // how the help writes it
  std::string_view help = "";   // "": not in the help
};

struct Item {
  std::string name;
  std::optional<std::string> value;
};

// --- values ---

Result<uint64_t> parse_number(std::string_view text, uint64_t least, uint64_t most) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size())
    return fail(EINVAL, "\"" + std::string(text) + "\" is not a whole number");
  if (number < least || number > most)
    return fail(EINVAL, "must be from " + std::to_string(least) + " to " + std::to_string(most));
  return number;
}

std::string size_text(uint64_t bytes) {
  const std::string_view units = "kmgt";
  size_t unit = 0;
  while (bytes % 1024 == 0 && bytes >= 1024 && unit < units.size()) {
    bytes /= 1024;
    ++unit;
  }
  return std::to_string(bytes) + (unit == 0 ? "" : std::string(1, units[unit - 1]));
}

Result<uint64_t> parse_size(std::string_view text, uint64_t least, uint64_t most) {
  const std::string_view units = "kmgtKMGT";
  const size_t unit = text.empty() ? units.npos : units.find(text.back());
  const unsigned shift = unit == units.npos ? 0 : 10 * static_cast<unsigned>(unit % 4 + 1);
  const std::string_view digits = shift == 0 ? text : text.substr(0, text.size() - 1);
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size())
    return fail(EINVAL, "\"" + std::string(text) + "\" is not a size; write 500m or 2g, say");
  if (number > kMost >> shift) return fail(EINVAL, "\"" + std::string(text) + "\" is too large");
  const uint64_t bytes = number << shift;
  if (bytes < least) return fail(EINVAL, "must be at least " + size_text(least));
  if (bytes > most) return fail(EINVAL, "must be at most " + size_text(most));
  return bytes;
}

// --- what each option does ---

Status swallow(MountOptions&, std::string_view) {
  return {};
}

template <bool MountOptions::*Member, bool value>
Status set_flag(MountOptions& options, std::string_view) {
  options.*Member = value;
  return {};
}

template <uint64_t MountOptions::*Member, uint64_t least, uint64_t most>
Status set_size(MountOptions& options, std::string_view value) {
  VALFS_ASSIGN(options.*Member, parse_size(value, least, most));
  return {};
}

template <auto Member, uint64_t least, uint64_t most>
Status set_time(MountOptions& options, std::string_view value) {
  VALFS_ASSIGN(const uint64_t number, parse_number(value, least, most));
  using Duration = std::remove_reference_t<decltype(options.*Member)>;
  options.*Member = Duration(static_cast<typename Duration::rep>(number));
  return {};
}

Status set_log(MountOptions& options, std::string_view value) {
  if (value != "journal" && value != "stderr" && !value.starts_with('/'))
    return fail(EINVAL, "must be journal, stderr, or the absolute path of a file");
  options.log = value;
  return {};
}

template <class T>
struct Choice {
  std::string_view name;
  T value;
};
constexpr Choice<Compression> kCompressions[] = {
    {"none", Compression::kNone}, {"lz4", Compression::kLz4}, {"zstd", Compression::kZstd}};
constexpr Choice<Transport> kTransports[] = {
    {"auto", Transport::kAuto}, {"uring", Transport::kUring}, {"dev", Transport::kDev}};

template <auto Member, const auto& choices>
Status set_choice(MountOptions& options, std::string_view value) {
  std::string names;
  for (const auto& choice : choices) {
    if (choice.name == value) {
      options.*Member = choice.value;
      return {};
    }
    const bool last = &choice == std::end(choices) - 1;
    names += (names.empty() ? "" : last ? " or " : ", ") + std::string(choice.name);
  }
  return fail(EINVAL, "must be " + names);
}

Status set_fsname(MountOptions& options, std::string_view value) {
  if (value.empty()) return fail(EINVAL, "must not be empty");
  options.fsname = value;
  return {};
}

Status refuse_read_only(MountOptions&, std::string_view) {
  return fail(EINVAL, "read-only mounts are not supported by this version");
}

using M = MountOptions;

constexpr Rule kRules[] = {
    {"size", Takes::kValue, set_size<&M::size, 16 * kMiB, kMost>, "BYTES",
     "most the volume may take on the disk; k, m, g, t multiply (what the disk has)"},
    {"cache", Takes::kValue, set_size<&M::cache, 0, kMost>, "BYTES",
     "memory for values read (64m)"},
    {"commit", Takes::kValue, set_time<&M::commit, 1, 60'000>, "MS",
     "without fsync, power loss costs at most so much time, 1 to 60000 (100)"},
    {"log-file", Takes::kValue, set_size<&M::log_file, 16 * kMiB, 16 * kGiB>, "BYTES",
     "largest size of a log file, 16m to 16g (512m)"},
    {"compress", Takes::kValue, set_choice<&M::compression, kCompressions>, "none|lz4|zstd",
     "what the cleaner does with values of 1 KiB and more that it copies (none)"},
    {"stop-timeout", Takes::kValue, set_time<&M::stop_timeout, 0, 3600>, "SECONDS",
     "how long SIGTERM waits for open files to be closed (10)"},
    {"private", Takes::kNothing, set_flag<&M::is_private, true>, "",
     "only the owner may come in, and the kernel checks no permissions (default, unless root "
     "mounts)"},
    {"allow-other", Takes::kNothing, set_flag<&M::allow_other, true>, "",
     "other users may come in, and the kernel checks permissions (default for root)"},
    {"default-permissions", Takes::kNothing, set_flag<&M::default_permissions, true>, "",
     "the kernel checks permissions (default for root)"},
    {"log", Takes::kValue, set_log, "journal|stderr|FILE",
     "where messages go (-f: stderr; else the journal, or DATA/valfs.log)"},
    {"transport", Takes::kValue, set_choice<&M::transport, kTransports>, "auto|uring|dev",
     "how requests come from the kernel: over io_uring where it is to be had (auto)"},
    {"fsname", Takes::kValue, set_fsname, "NAME", "source that mount(8) and df(1) show (DATA)"},
    {"nosuid", Takes::kNothing, set_flag<&M::nosuid, true>, "",
     "no set-user-id programs (default, unless root mounts data that root owns)"},
    {"suid", Takes::kNothing, set_flag<&M::nosuid, false>},
    {"nodev", Takes::kNothing, set_flag<&M::nodev, true>, "", "no device files (default as above)"},
    {"dev", Takes::kNothing, set_flag<&M::nodev, false>},
    {"noexec", Takes::kNothing, set_flag<&M::noexec, true>, "", "no programs"},
    {"exec", Takes::kNothing, set_flag<&M::noexec, false>},
    {"sync", Takes::kNothing, set_flag<&M::sync, true>, "", "every write is an fsync"},
    {"async", Takes::kNothing, set_flag<&M::sync, false>},
    {"dirsync", Takes::kNothing, set_flag<&M::dirsync, true>},
    {"noatime", Takes::kNothing, set_flag<&M::noatime, true>},
    {"ro", Takes::kNothing, refuse_read_only},
    // What mount(8) and fstab say to themselves, and what is always so here.
    {"rw", Takes::kNothing, swallow},
    {"defaults", Takes::kNothing, swallow},
    {"auto", Takes::kNothing, swallow},
    {"noauto", Takes::kNothing, swallow},
    {"nofail", Takes::kNothing, swallow},
    {"user", Takes::kEither, swallow},
    {"nouser", Takes::kNothing, swallow},
    {"users", Takes::kNothing, swallow},
    {"owner", Takes::kNothing, swallow},
    {"group", Takes::kNothing, swallow},
    {"-netdev", Takes::kNothing, swallow},
    {"comment", Takes::kValue, swallow},
    {"x-*", Takes::kEither, swallow},
    {"atime", Takes::kNothing, swallow},
    {"relatime", Takes::kNothing, swallow},
    {"norelatime", Takes::kNothing, swallow},
    {"strictatime", Takes::kNothing, swallow},
    {"nostrictatime", Takes::kNothing, swallow},
    {"diratime", Takes::kNothing, swallow},
    {"nodiratime", Takes::kNothing, swallow},
    {"lazytime", Takes::kNothing, swallow},
    {"nolazytime", Takes::kNothing, swallow},
    {"silent", Takes::kNothing, swallow},
    {"loud", Takes::kNothing, swallow},
};

// --- grammar ---

// Splits at the commas that are neither escaped nor quoted. Of each item the first `=` ends the
// name, since no name has one.
Result<std::vector<Item>> split_list(std::string_view list) {
  std::vector<Item> items;
  Item item;
  bool quoted = false;
  const auto finish = [&] {
    if (!item.name.empty() || item.value) items.push_back(std::move(item));
    item = Item{};
  };
  for (size_t i = 0; i < list.size(); ++i) {
    char c = list[i];
    bool literal = quoted;
    if (c == '"') {
      quoted = !quoted;
      continue;
    }
    if (c == '\\') {
      if (++i == list.size())
        return fail(EINVAL, "options \"" + std::string(list) + "\" end in a backslash");
      c = list[i];
      literal = true;
    }
    if (c == ',' && !literal) {
      finish();
    } else if (c == '=' && !item.value) {
      item.value.emplace();
    } else {
      (item.value ? *item.value : item.name) += c;
    }
  }
  if (quoted) return fail(EINVAL, "a quote is not closed in options \"" + std::string(list) + "\"");
  finish();
  return items;
}

std::string normalized(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

// As people write it in -o.
std::string shown(std::string_view name) {
  std::string text(name);
  std::replace(text.begin(), text.end(), '-', '_');
  return text;
}

const Rule* find_rule(std::string_view name) {
  const auto matches = [&](const Rule& rule) {
    if (rule.name.ends_with('*'))
      return name.starts_with(rule.name.substr(0, rule.name.size() - 1));
    return rule.name == name;
  };
  const auto found = std::find_if(std::begin(kRules), std::end(kRules), matches);
  return found == std::end(kRules) ? nullptr : found;
}

// How many letters have to be added, taken away or exchanged.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, substituted});
    }
  }
  return row.back();
}

tl::unexpected<Error> unknown_option(const std::string& given, std::string_view name) {
  const Rule* nearest = nullptr;
  size_t least = std::max<size_t>(2, name.size() / 3) + 1;
  for (const Rule& rule : kRules) {
    const size_t edits = distance(name, rule.name);
    const bool prefix = name.size() >= 3 && rule.name.starts_with(name);
    if (const size_t cost = prefix ? 1 : edits; cost < least && cost < name.size()) {
      least = cost;
      nearest = &rule;
    }
  }
  const std::string hint = nearest != nullptr ? "did you mean \"" + shown(nearest->name) + "\"?"
                                              : "valfs mount --help lists them";
  return fail(EINVAL, "unknown option \"" + given + "\"; " + hint);
}

Status apply(MountOptions& options, const Item& item, UnknownOptions unknown) {
  const std::string name = normalized(item.name);
  const Rule* rule = find_rule(name);
  if (rule == nullptr) {
    if (unknown == UnknownOptions::kIgnore) return {};
    return unknown_option(item.name, name);
  }
  if (rule->takes == Takes::kValue && !item.value)
    return fail(EINVAL, "option " + item.name + " needs a value: " + item.name + "=" +
                            std::string(rule->value.empty() ? "VALUE" : rule->value));
  if (rule->takes == Takes::kNothing && item.value)
    return fail(EINVAL, "option " + item.name + " takes no value");
  auto applied = rule->apply(options, item.value.value_or(""));
  if (!applied) return fail(EINVAL, "option " + item.name + ": " + applied.error().what);
  return {};
}

// Works out who may come in.
Status settle_access(MountOptions& options, bool by_root) {
  if (options.is_private && (options.allow_other || options.default_permissions))
    return fail(EINVAL, std::string("options private and ") +
                            (options.allow_other ? "allow_other" : "default_permissions") +
                            " contradict each other");
  if (options.is_private) return {};
  if (by_root) options.allow_other = true;
  // Letting others in without checks would give them everything.
  if (options.allow_other) options.default_permissions = true;
  options.is_private = !options.allow_other && !options.default_permissions;
  return {};
}

}  // namespace

Result<MountOptions> parse_mount_options(const std::vector<std::string>& lists, bool by_root,
                                         UnknownOptions unknown) {
  MountOptions options;
  for (const std::string& list : lists) {
    VALFS_ASSIGN(const std::vector<Item> items, split_list(list));
    for (const Item& item : items) VALFS_TRY(apply(options, item, unknown));
    if (!list.empty()) options.text += (options.text.empty() ? "" : ",") + list;
  }
  VALFS_TRY(settle_access(options, by_root));
  return options;
}

std::string describe_mount_options() {
  constexpr size_t kColumn = 28;
  std::string text = "Options of -o, with their defaults (`-` may be written for `_`):\n";
  for (const Rule& rule : kRules) {
    if (rule.help.empty()) continue;
    std::string line = "  " + shown(rule.name);
    if (!rule.value.empty()) line += "=" + std::string(rule.value);
    line.resize(std::max(line.size() + 1, kColumn), ' ');
    text += line + std::string(rule.help) + "\n";
  }
  text +=
      "Also suid, dev, exec, async, dirsync and noatime; what concerns only fstab (defaults,\n"
      "nofail, user, _netdev, x-..., ...) is passed over. A comma in a value is written \\, or\n"
      "the value is put in double quotes.";
  return text;
}

}  // namespace valfs::fs
