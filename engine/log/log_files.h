// The log files of a volume: which there are, which come next, which go.
//
// A log file is prepared (zeros all over, header, durable name) before it is needed, so that the
// commit path never creates one and never finds the disk full.
//
// Thread-safe. A LogFile lives as long as somebody holds it; freeing removes its name only.
#pragma once

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/log/footer.h"
#include "engine/log/manifest.h"

namespace valfs::log {

struct LogFile {
  FileId id = 0;
  Epoch epoch = 0;
  std::shared_ptr<storage::File> file;
  bool zeroed = true;  // else its space is reserved only
  // Guarded by the mutex of LogFiles; the log writer's file grows.
  Stream stream = Stream::kUser;
  uint64_t size = 0;                   // bytes of the file
  uint64_t begin = kFirstGroupOffset;  // the cleaner has freed what lies before
  uint64_t end = kFirstGroupOffset;    // behind the last group
  ObjectId highest_object = 0;         // no record in it is about a younger object
  GroupSequence first_group = 0;       // of those not freed
  GroupSequence last_group = 0;
  bool sealed = false;          // the log writer has left it
  uint64_t footer = 0;          // bytes of its footer; 0: it has none
  std::shared_ptr<Footer> map;  // what its footer will say
  bool mapped = false;          // all of its groups are in the map
};
using LogFileRef = std::shared_ptr<LogFile>;

class LogFiles {
 public:
  struct Limits {
    uint64_t smallest = 0;  // bytes of a file that is made where there is little room
    // Groups of users that are at least so long on average are a bulk, see prepare().
    uint64_t bulk_group = 0;  // 0: never
    // Bytes that log files may still take (volume cap less what is used); asked before each file.
    std::function<uint64_t()> room;
  };
  struct Usage {
    uint64_t files = 0;
    uint64_t used = 0;   // bytes in groups not freed, padding included, and in footers
    uint64_t spare = 0;  // bytes of prepared files
    uint64_t bytes = 0;  // of all of them on the disk
  };

  LogFiles(storage::Storage& storage, const VolumeId& volume);

  // Sets the epoch of new files and the first id to give out.
  void begin(Epoch epoch, FileId next_file, Limits limits);
  void set_file_size(uint64_t size, uint64_t smallest);
  uint64_t file_size() const { return file_size_.load(std::memory_order_relaxed); }

  // A file that recovery found.
  void adopt(LogFileRef file);

  LogFileRef find(FileId id) const;
  // What is known of a file at this moment.
  LogFile state_of(const LogFile& file) const;
  std::vector<LogFileRef> sealed() const;  // by id
  std::vector<LogFileRef> all() const;     // by id, active ones too, spares not
  Salt salt(const LogFile& file) const { return {volume_salt_, file.id, file.epoch}; }

  // Prepares spares until there are `wanted`. Slow; one caller works, others wait for it. ENOSPC if
  // the disk or the cap of the volume has no room. `small_will_do`: better a small one than none.
  //
  // Zeros make a commit one flush, at the price of writing everything twice. While long groups come
  // in bulk that price is higher than the file system's commit for each of them: then space is only
  // reserved. Once they are short again, such spares are replaced.
  Status prepare(size_t wanted, bool small_will_do = false);
  // Does so: slow, and for nobody who waits for a spare. Where there is no room they have to do.
  Status replace_reserved_spares();
  size_t spares() const;
  // Whether users' groups come in bulk.
  bool is_bulk() const;
  // Whether the oldest spare has its zeros.
  bool zeroed_spare() const;
  // The oldest spare becomes a file of the log. There must be one.
  LogFileRef take_spare(Stream stream);

  // Bookkeeping of the log writer and recovery.
  void note_group(uint64_t bytes);  // of users, one that is sent
  void grew(LogFile& file, uint64_t end, GroupSequence group, ObjectId highest_object);
  void mark_sealed(LogFile& file);
  // For the footer: a group, and where its large payloads lie.
  void map_group(LogFile& file, const FooterGroup& group, std::span<const Gap> gaps);
  // The file ends before groups that could not be written and were moved elsewhere.
  void cut_back(LogFile& file, uint64_t end, GroupSequence last_group);
  // The cleaner is done with what lies before `begin`; `first_group` is the first that is left.
  void freed(LogFile& file, uint64_t begin, GroupSequence first_group);

  // What is there now. `gone`: a file that is about to be removed.
  Manifest manifest(GroupSequence newest_freed, FileId gone) const;
  // Puts entries of a manifest right that was written before files were cut back.
  void amend(std::span<ManifestEntry> entries) const;

  // Gives back what sealed files did not use, and writes their footers. Slow.
  Status trim_sealed();
  // Removes the name; durable when it returns.
  Status remove(FileId id);
  // Removes unused spares.
  Status remove_spares();

  Usage usage() const;
  // The same; without a lock.
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }
  FileId next_file() const;

 private:
  Status write_footer(LogFile& file);
  Result<LogFileRef> make_file(FileId id, uint64_t size, bool zeroed);
  Status fill_file(LogFile& file, std::span<const std::byte> header) const;
  Status prepare_one(bool small_will_do);
  bool should_replace() const;
  Status remove_unused(const LogFile& file);

  storage::Storage& storage_;
  const VolumeId volume_;
  const uint32_t volume_salt_;
  std::mutex prepare_mutex_;  // held over the slow work
  mutable std::mutex mutex_;  // guards what follows
  Epoch epoch_ = 0;
  FileId next_file_ = 1;
  FileId newest_used_ = 0;  // no younger file has ever held a group
  Limits limits_;
  uint64_t group_average_ = 0;  // bytes of users' groups, moving
  bool bulk_ = false;
  std::map<FileId, LogFileRef> files_;
  std::deque<LogFileRef> spares_;
  std::atomic<uint64_t> used_{0};
  std::atomic<uint64_t> file_size_{0};  // of new files
};

}  // namespace valfs::log
