// Names and files of the simulated disk. sim_disk.h tells the rules.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/storage/sim_content.h"
#include "engine/storage/sim_random.h"

namespace valfs::storage {

// Cheap to copy: copies share the files' content until one of them changes it.
class SimTree {
 public:
  using Id = uint64_t;               // of a file or directory; never used again
  using Use = std::shared_ptr<int>;  // kept by whoever has a file open, so that it stays

  explicit SimTree(size_t sector_size);

  Result<Id> find_file(const std::string& path) const;
  Result<Id> create_file(const std::string& path);
  Status make_directory(const std::string& path);
  Status remove(const std::string& path);
  Status rename(const std::string& from, const std::string& to);
  Status sync_directory(const std::string& path);
  Result<std::vector<std::string>> list(const std::string& path) const;

  Use use(Id file) const { return nodes_.at(file).use; }
  const SimContent& content(Id file) const { return *nodes_.at(file).content; }
  SimContent& change_content(Id file);

  // Bytes that files take which have a name or are open.
  uint64_t allocated() const;
  // The paths of all files, sorted.
  std::vector<std::string> files() const;

  // Takes the name away at once and durably.
  Status erase(const std::string& path);
  // No file is open any more.
  void close_all();
  SimTree after_power_loss(SimRandom& random) const;

 private:
  using Names = std::map<std::string, Id>;
  // What one operation changes in one directory: names and what they then mean (kNothing: they
  // are gone).
  using Change = std::vector<std::pair<std::string, Id>>;

  struct Node {
    std::shared_ptr<SimContent> content;  // null: a directory
    Use use = std::make_shared<int>();
    unsigned links = 0;  // names that a look-up finds

    // Of a directory.
    Names names;
    Names durable_names;
    std::vector<Change> unsynced;  // oldest first
  };

  struct Place {
    Id directory;
    std::string name;
  };

  static void apply(Names& names, const Change& change);

  Result<Id> find(const std::string& path) const;
  Result<Id> find_directory(const std::string& path) const;
  Result<Place> place(const std::string& path) const;
  Id look_up(const Place& place) const;
  Id add(const Place& place, std::shared_ptr<SimContent> content);
  void change(Id directory, const Change& change);
  Status check_replaceable(Id target, bool by_file, const std::string& path) const;
  void count_links();
  void forget_unreachable();

  size_t sector_size_;
  std::map<Id, Node> nodes_;
  Id next_id_;
};

}  // namespace valfs::storage
