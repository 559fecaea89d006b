#include "fs/virtual_files.h"

#include <unistd.h>

#include <array>
#include <charconv>

#include "fs/stat_of.h"
#include "fs/tool_output.h"

namespace valfs::fs {
namespace {

constexpr std::array<VirtualFiles::Listed, 3> kFiles{
    {{16, "control"}, {17, "stats"}, {18, "config"}}};

std::string trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1));
}

// "scrub rate=50000000" → bytes a second. Nothing: not such a word.
std::optional<uint64_t> scrub_rate(const std::string& word) {
  constexpr std::string_view kRate = "scrub rate=";
  if (word == "scrub") return 0;
  if (word.rfind(kRate, 0) != 0) return std::nullopt;
  uint64_t rate = 0;
  const char* end = word.data() + word.size();
  const auto parsed = std::from_chars(word.data() + kRate.size(), end, rate);
  if (parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return rate;
}

bool is_word(const std::string& word) {
  return word == "gc" || word == "sync" || word == "checkpoint" || word == "drop_caches" ||
         word == "scrub stop" || scrub_rate(word).has_value();
}

}  // namespace

VirtualFiles::VirtualFiles(Store& store, const RequestCounts& counts, Place place)
    : store_(store),
      counts_(counts),
      place_(std::move(place)),
      owner_(geteuid()),
      group_(getegid()) {}

void VirtualFiles::finish() {
  store_.stop_scrub(true);
  std::vector<Command> commands;
  {
    const std::lock_guard lock(mutex_);
    commands.swap(commands_);
  }
  for (Command& command : commands) command.thread.join();
}

std::vector<VirtualFiles::Listed> VirtualFiles::list() {
  return {kFiles.begin(), kFiles.end()};
}

std::optional<struct stat> VirtualFiles::lookup(std::string_view name) {
  for (size_t i = 0; i < kFiles.size(); i++) {
    if (kFiles[i].name != name) continue;
    const Kind kind = static_cast<Kind>(i);
    std::string text = text_of(kind);
    const std::lock_guard lock(mutex_);
    const uint64_t id = next_id_++;
    const struct stat result = stat_of(id, kind, text.size());
    files_[id] = {kind, std::move(text), 1};
    return result;
  }
  return std::nullopt;
}

struct stat VirtualFiles::stat_of(uint64_t id, Kind kind, size_t size) const {
  struct stat result {};
  result.st_ino = id;
  result.st_mode = S_IFREG | (kind == Kind::kControl ? 0600 : 0444);
  result.st_nlink = 1;
  result.st_uid = owner_;
  result.st_gid = group_;
  result.st_size = static_cast<off_t>(size);
  result.st_blksize = 4096;
  result.st_mtim.tv_sec = result.st_ctim.tv_sec = result.st_atim.tv_sec = wall_clock().seconds;
  return result;
}

std::optional<struct stat> VirtualFiles::stat(uint64_t id) const {
  if (id == kDirectoryId) {
    struct stat result {};
    result.st_ino = id;
    result.st_mode = S_IFDIR | 0555;
    result.st_nlink = 2;
    result.st_uid = owner_;
    result.st_gid = group_;
    return result;
  }
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(id);
  if (found == files_.end()) return std::nullopt;
  return stat_of(id, found->second.kind, found->second.text.size());
}

std::string VirtualFiles::read(uint64_t id, uint64_t offset, size_t length) const {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(id);
  if (found == files_.end() || offset >= found->second.text.size()) return {};
  return found->second.text.substr(offset, length);
}

void VirtualFiles::forget(uint64_t id, uint64_t count) {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(id);
  if (found == files_.end()) return;
  found->second.references -= std::min(count, found->second.references);
  if (found->second.references == 0) files_.erase(found);
}

void VirtualFiles::write(uint64_t id, std::string_view text, Done done) {
  const std::string word = trimmed(text);
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(id);
  if (found == files_.end()) return done(ENOENT);
  if (found->second.kind != Kind::kControl) return done(EACCES);
  if (!is_word(word)) return done(EINVAL);
  std::erase_if(commands_, [](Command& command) {
    const bool finished = command.finished->load();
    if (finished) command.thread.join();
    return finished;
  });
  auto finished = std::make_shared<std::atomic<bool>>(false);
  std::thread thread([this, word, finished, done = std::move(done)] {
    done(run(word));
    finished->store(true);
  });
  commands_.push_back({std::move(thread), std::move(finished)});
}

int VirtualFiles::run(const std::string& word) {
  if (word == "gc") return run_gc();
  if (scrub_rate(word)) return run_scrub(word);
  if (word == "scrub stop") {
    store_.stop_scrub();
    return 0;
  }
  Status status;
  if (word == "sync") status = store_.sync();
  if (word == "checkpoint") status = store_.checkpoint();
  if (word == "drop_caches") store_.drop_caches();
  set_outcome(word + ": " + (status ? std::string("done") : "failed: " + status.error().what) +
              "\n");
  return status ? 0 : status.error().code;
}

int VirtualFiles::run_gc() {
  const auto done = store_.gc();
  if (!done) {
    if (done.error().code != EBUSY) set_outcome("gc: failed: " + done.error().what + "\n");
    return done.error().code;
  }
  set_outcome("gc: done, " + std::to_string(done->bytes_reclaimed) + " bytes reclaimed, " +
              std::to_string(done->files_freed) + " files freed, " +
              std::to_string(done->bytes_copied) + " bytes copied\n");
  return 0;
}

int VirtualFiles::run_scrub(const std::string& word) {
  const auto done = store_.scrub(*scrub_rate(word));
  if (!done) {
    if (done.error().code == EBUSY) return EBUSY;
    set_outcome(done.error().code == ECANCELED ? fs::text_of(store_.scrub_progress())
                                               : "scrub: failed: " + done.error().what + "\n");
    return done.error().code;
  }
  set_outcome(fs::text_of(*done));
  return done->damaged == 0 ? 0 : EUCLEAN;
}

void VirtualFiles::set_outcome(std::string text) {
  const std::lock_guard lock(mutex_);
  outcome_ = std::move(text);
}

std::string VirtualFiles::control_text() const {
  const GcProgress progress = store_.gc_progress();
  if (progress.running) {
    return "gc: running, " + std::to_string(progress.files_done) + " of " +
           std::to_string(progress.files_total) + " files, " +
           std::to_string(progress.bytes_reclaimed) + " bytes reclaimed, " +
           std::to_string(progress.bytes_copied) + " bytes copied\n";
  }
  if (const auto scrub = store_.scrub_progress(); scrub.running) {
    return fs::text_of(scrub);
  }
  const std::lock_guard lock(mutex_);
  return outcome_.empty() ? "idle\n" : outcome_;
}

std::string VirtualFiles::text_of(Kind kind) const {
  switch (kind) {
    case Kind::kControl:
      return control_text();
    case Kind::kStats:
      return stats_text();
    case Kind::kConfig:
      return config_text();
  }
  return {};
}

std::string VirtualFiles::config_text() const {
  OrderedJson json;
  json["version"] = VALFS_VERSION;
  json["pid"] = getpid();
  json["data"] = place_.data_directory;
  json["mountpoint"] = place_.mountpoint;
  json["options"] = place_.mount_options;
  return json.dump(2) + "\n";
}

std::string VirtualFiles::stats_text() const {
  const StoreStats stats = store_.stats();
  OrderedJson json;
  json["volume"] = {{"id", stats.volume},
                    {"epoch", stats.epoch},
                    {"inodes", stats.inodes},
                    {"names", stats.names},
                    {"capacity_bytes", stats.capacity_bytes},
                    {"available_bytes", stats.available_bytes},
                    {"failure", stats.failure}};
  json["io"] = stats.io;
  json["transport"] = place_.transport();
  json["log"] = {{"files", stats.log_files},
                 {"live_bytes", stats.live_bytes},
                 {"dead_bytes", stats.dead_bytes},
                 {"spare_bytes", stats.spare_bytes},
                 {"disk_bytes", stats.log_bytes},
                 {"groups_sent", stats.groups_sent},
                 {"appended_group", stats.appended_group},
                 {"durable_group", stats.durable_group},
                 {"undurable_age_ms", stats.undurable_ms}};
  json["blobs"] = {{"disk_bytes", stats.blob_bytes}, {"undurable_age_ms", stats.undurable_blob_ms}};
  json["checkpoint"] = {{"disk_bytes", stats.checkpoint_bytes},
                        {"covers_group", stats.checkpoint_covers}};
  json["cache"] = {{"capacity_bytes", stats.cache.capacity}, {"bytes", stats.cache.bytes},
                   {"entries", stats.cache.entries},         {"hits", stats.cache.hits},
                   {"misses", stats.cache.misses},           {"inserts", stats.cache.inserts},
                   {"evictions", stats.cache.evictions},     {"bypasses", stats.cache.bypasses}};
  json["cleaner"] = {{"files_freed", stats.cleaned_files},
                     {"bytes_freed", stats.cleaned_bytes},
                     {"bytes_copied", stats.copied_bytes},
                     {"compressed_records", stats.compressed_records},
                     {"compressed_bytes", stats.compressed_bytes},
                     {"compressed_raw_bytes", stats.compressed_raw_bytes},
                     {"debt_bytes", stats.debt_bytes}};
  json["groups_moved_after_a_failed_write"] = stats.relocations;
  json["recovery"] = {{"used_checkpoint", stats.used_checkpoint},
                      {"used_older_checkpoint", stats.used_older_checkpoint},
                      {"files_read_by_footer", stats.footers_used},
                      {"replayed_groups", stats.replayed_groups},
                      {"replayed_records", stats.replayed_records},
                      {"drained_groups", stats.drained_groups},
                      {"dropped_groups", stats.dropped_groups},
                      {"damaged_groups", stats.damaged_groups},
                      {"damaged_values", stats.damaged_values}};
  OrderedJson requests;
  for (size_t i = 0; i < kRequestNames.size(); i++) {
    requests[std::string(kRequestNames[i])] = counts_.of(i);
  }
  json["requests"] = requests;
  return json.dump(2) + "\n";
}

}  // namespace valfs::fs
