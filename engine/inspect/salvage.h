// What the records of a log say when nothing else is left to say it: no superblock, no checkpoint,
// no headers of log files, no directories. Reads only.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/index/index.h"
#include "engine/inspect/dry_storage.h"
#include "engine/inspect/log_reader.h"

namespace valfs::inspect {

class Salvage {
 public:
  struct Hint {  // as a record of the value remembers it
    log::ObjectId parent = 0;
    std::string name;
    log::RecordSequence sequence = 0;
  };
  struct Hole {  // bytes of a value that are not there
    uint64_t offset = 0;
    uint64_t length = 0;
    std::string what;
  };
  // Takes bytes that are good; false ends the reading.
  using Write = std::function<bool(uint64_t offset, std::span<const std::byte>)>;

  // Finds log files and blobs anywhere below `storage`, which must live longer, and applies all
  // records in order of their sequence. Where the superblock is whole its cuts are respected;
  // staged groups of a daemon that was killed are taken. ENOENT: no log file.
  static Result<std::unique_ptr<Salvage>> read(storage::Storage& storage);

  const index::Index& index() const { return index_; }
  const std::map<log::ObjectId, Hint>& hints() const { return hints_; }
  const std::vector<Damage>& damages() const { return damages_; }
  const std::vector<std::string>& remarks() const { return remarks_; }  // sentences
  uint64_t records() const { return records_; }
  size_t log_files() const { return reader_.files().size(); }

  // Every good byte of a value, in rising order; returns what is missing.
  std::vector<Hole> read_value(const index::Inode& inode, const Write& write) const;
  // Blobs that no inode names: id, path.
  std::vector<std::pair<log::ObjectId, std::string>> nameless_blobs() const;
  std::vector<Hole> read_blob(log::ObjectId blob, uint64_t size, const Write& write) const;
  // Bytes of the file of a blob; 0 if there is none.
  uint64_t blob_size(log::ObjectId blob) const;

 private:
  explicit Salvage(storage::Storage& storage) : dry_(storage) {}

  struct Kept;
  Status find_files();
  void choose_volume();
  void take_staged_groups();
  std::vector<Kept> collect();
  void apply(std::vector<Kept> kept);
  Status read_extent(const index::Extent& extent, uint64_t skip, std::span<std::byte> into) const;
  void read_extent_by_chunks(const index::Extent& extent, const Write& write,
                             std::vector<Hole>& holes) const;

  mutable DryStorage dry_;  // it only looks
  LogReader reader_;
  std::map<log::ObjectId, std::string> blobs_;  // id → path
  index::Index index_;
  std::map<log::ObjectId, Hint> hints_;
  std::vector<Damage> damages_;
  std::vector<std::string> remarks_;
  uint64_t records_ = 0;
};

}  // namespace valfs::inspect
