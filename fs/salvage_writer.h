// Writes what salvage has found as a plain directory tree.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/inspect/salvage.h"
#include "fs/tool_output.h"

namespace valfs::fs {

class SalvageWriter {
 public:
  struct Counts {
    uint64_t files = 0;
    uint64_t directories = 0;
    uint64_t links = 0;    // symbolic ones, and devices
    uint64_t damaged = 0;  // values with holes
    uint64_t unplaced = 0;
    uint64_t bytes = 0;
  };

  // `target`: an empty directory.
  SalvageWriter(const inspect::Salvage& salvage, std::string target);
  ~SalvageWriter();
  SalvageWriter(const SalvageWriter&) = delete;
  SalvageWriter& operator=(const SalvageWriter&) = delete;

  // Fails only if the target cannot be written to any more; what one value lacks is in the report,
  // TARGET/salvage-report.jsonl.
  Status run();
  const Counts& counts() const { return counts_; }

 private:
  struct Item {
    std::string name;
    log::ObjectId inode = 0;
  };

  void place_all();
  void place(const index::Inode& inode);
  void put(log::ObjectId directory, std::string name, log::ObjectId inode);
  void put_lost(log::ObjectId inode);
  bool is_directory(log::ObjectId inode) const;

  Status write_directory(int parent, const std::string& path, log::ObjectId id);
  Status write_item(int directory, const std::string& path, const Item& item);
  Status write_file(int directory, const std::string& path, const Item& item,
                    const index::Inode& inode);
  Status write_symlink(int directory, const std::string& path, const Item& item,
                       const index::Inode& inode);
  Status write_nameless_blobs(int directory);
  Status write_lost(int root);
  void set_attributes(int fd, const std::string& path, const index::Found<index::Inode>& inode,
                      bool directory);
  void report_holes(const std::string& path, log::ObjectId inode,
                    const std::vector<inspect::Salvage::Hole>& holes);
  void report(OrderedJson json);
  void report_damages();

  const inspect::Salvage& salvage_;
  const std::string target_;
  int report_ = -1;
  std::map<log::ObjectId, std::vector<Item>> children_;  // by directory; 0: lost+found
  std::map<log::ObjectId, std::set<std::string>> taken_;
  std::set<log::ObjectId> written_directories_;
  std::map<log::ObjectId, std::string> written_files_;  // first path below the target
  int root_ = -1;
  Counts counts_;
};

}  // namespace valfs::fs
