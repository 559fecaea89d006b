// Reads log files record by record: of a data directory that nobody has mounted, without changing
// it and without need of its superblock, or the sealed ones of a running store.
//
// A LogReader may be used by one thread at a time. Offsets and lengths are bytes.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/log/group.h"
#include "engine/log/log_files.h"
#include "engine/recovery/file_scan.h"

namespace valfs::inspect {

// A place in a log file that is not as it was written.
struct Damage {
  enum class Kind {
    kStretch,    // no group can be recognised
    kRecord,     // a record of a group is lost; `lost` says which, if the directory is there
    kPayload,    // a record whose payload does not match its CRCs
    kDirectory,  // the list of a group's records
    kCutOff,     // the file ends inside a group
    kUnreadable  // the disk gave an error
  };
  Kind kind{};
  log::FileId file = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
  log::GroupSequence group = 0;  // 0: not known
  std::optional<log::DirectoryEntry> lost;
  std::string text() const;  // "a payload does not match its checksum"
};

// The footer of a sealed log file. It is a hint: nothing is lost with it.
struct FooterPlace {
  log::FileId file = 0;
  uint64_t begin = 0;
  uint64_t end = 0;
  std::optional<log::Footer> footer;  // if it is whole
  bool right = false;                 // it says what there is
};

// A record read on its own. The views of `found` point into `bytes`.
struct StoredRecord {
  std::vector<std::byte> bytes;
  log::FoundRecord found;
  bool payload_good = false;
};

// How a file was recognised as a log file.
struct Identity {
  log::Salt salt;
  std::optional<log::LogFileHeader> header;  // of the file, where it is whole
  bool guessed = false;  // nothing in it says what it is; other files of the volume do
};

// Looks at the header of a log file, or, where that is damaged, for a group that names volume, file
// and epoch. Nothing: it holds neither.
std::optional<Identity> identify(storage::File& file, uint64_t size);

// The damage of one group, in order of place.
std::vector<Damage> damage_of(const recovery::FoundGroup& group,
                              const log::GroupContents& contents);

class LogReader {
 public:
  // False ends the scan. What they are given is good during the call.
  struct Visitor {
    // Every record whose header is good, in order of place; its payload is in it, good or not.
    std::function<bool(const log::Record&, log::Position, bool payload_good)> record;
    std::function<bool(const Damage&)> damage;
    std::function<bool(const recovery::FoundGroup&)> group;  // before its records
    // In front of the first group: what the cleaner has given back.
    std::function<void(uint64_t begin, uint64_t end)> freed;
    std::function<void(const FooterPlace&)> footer;
  };

  // Every log file below wal/. `volume`: files of another one are left out.
  static Result<LogReader> open(storage::Storage& storage,
                                const std::optional<log::VolumeId>& volume = std::nullopt);
  LogReader() = default;

  // Adds a file, by what identify() says of it. False: it is no log file.
  bool add(std::shared_ptr<storage::File> file, const std::string& path, log::FileId id_by_name);
  // Adds a part of a file of a running store.
  void add(const log::LogFileRef& file, const log::Salt& salt, uint64_t begin, uint64_t end);
  // Files that say nothing of themselves are tried with what the others say. Returns how many
  // records that has made readable.
  size_t guess_unidentified();
  // What the cleaner had freed may be there still, or in part: it is left out, as far as a manifest
  // says so that is known to be durable. `durable`: all groups up to it are.
  void leave_out_freed(log::GroupSequence durable);

  struct Entry {
    log::LogFileRef file;
    std::string path;
    Identity identity;
    uint64_t begin = log::kFirstGroupOffset;
    uint64_t end = 0;  // where reading stops
  };
  const std::vector<Entry>& files() const { return files_; }  // by id
  // Files that say nothing of themselves, and of which nothing could be read.
  const std::vector<Entry>& unidentified() const { return unidentified_; }
  const Entry* find(log::FileId id) const;

  // Calls the visitor for all records of a file, resynchronising behind damage. ENOENT: no such
  // file.
  Status scan(log::FileId id, const Visitor& visitor) const;
  static void scan(const Entry& entry, const Visitor& visitor);
  // ENOENT: no such file. EIO: there is no record at that place, or it is damaged.
  Result<StoredRecord> read_record(log::Position position) const;

 private:
  void sort();

  std::vector<Entry> files_;
  std::vector<Entry> unidentified_;
};

}  // namespace valfs::inspect
