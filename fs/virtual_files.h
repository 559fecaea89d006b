// The hidden directory `.valfs/` at the root of a mount: `control`, `stats`, `config`.
//
// It is found by lookup only, never by readdir. A file has no handle (the mount answers no OPEN),
// so each lookup makes a fresh inode with a snapshot of the text; FORGET drops it. Thread-safe.
#pragma once

#include <sys/stat.h>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "engine/store.h"
#include "fs/request_counts.h"

namespace valfs::fs {

class VirtualFiles {
 public:
  static constexpr std::string_view kDirectoryName = ".valfs";
  // Ids from here on are never given to inodes of the store.
  static constexpr uint64_t kFirstId = uint64_t{1} << 62;
  static constexpr uint64_t kDirectoryId = kFirstId;
  static bool is_virtual(uint64_t id) { return id >= kFirstId; }

  struct Place {  // for `config`
    std::string data_directory;
    std::string mountpoint;
    std::string mount_options;
    std::function<std::string()> transport;  // for `stats`
  };
  struct Listed {
    uint64_t cookie;
    std::string_view name;
  };

  VirtualFiles(Store& store, const RequestCounts& counts, Place place);
  ~VirtualFiles() { finish(); }
  // Waits for commands under way.
  void finish();

  std::optional<struct stat> lookup(std::string_view name);  // in .valfs/; one reference
  std::optional<struct stat> stat(uint64_t id) const;
  std::string read(uint64_t id, uint64_t offset, size_t length) const;
  void forget(uint64_t id, uint64_t count);
  static std::vector<Listed> list();

  // A write to a file: the errno, or, for a command, later, on another thread, what it came to.
  using Done = std::function<void(int error)>;
  void write(uint64_t id, std::string_view text, Done done);

 private:
  enum class Kind { kControl, kStats, kConfig };
  struct File {
    Kind kind;
    std::string text;
    uint64_t references = 1;
  };
  struct Command {
    std::thread thread;
    std::shared_ptr<std::atomic<bool>> finished;
  };

  std::string text_of(Kind kind) const;
  std::string stats_text() const;
  std::string config_text() const;
  std::string control_text() const;
  struct stat stat_of(uint64_t id, Kind kind, size_t size) const;
  int run(const std::string& word);
  int run_gc();
  int run_scrub(const std::string& word);
  void set_outcome(std::string text);

  Store& store_;
  const RequestCounts& counts_;
  const Place place_;
  const uid_t owner_;
  const gid_t group_;

  mutable std::mutex mutex_;
  uint64_t next_id_ = kDirectoryId + 1;
  std::map<uint64_t, File> files_;
  std::string outcome_;  // of the last command
  std::vector<Command> commands_;
};

}  // namespace valfs::fs
