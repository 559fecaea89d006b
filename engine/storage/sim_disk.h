// A disk in memory that loses, tears and reorders whatever was not synced. The whole engine runs on
// it in tests: cut the power at any operation, look at what recovery makes of the rest.
//
// What survives power loss.
// - Files consist of sectors. A sector survives whole: as it was when it was last durable, or as
//   any write since has left it. Each sector chooses for itself, whatever the order of the writes.
// - sync() makes all bytes of the file, and its size, durable. The end of a write_durably without
//   error makes its own sectors durable, and the size of the file; other unsynced sectors stay so.
// - Durable writes end in any order. Until then reads see the old bytes, and a crash applies any
//   subset of the sectors. The disk checks that the bytes have not changed meanwhile.
// - A size that was not synced is one that the file has had since its last sync. Bytes that a file
//   never got read as zeros.
// - What was created, removed or renamed becomes durable by sync_directory(). Until then a crash
//   keeps, of each directory, the first so many of its changes. A rename within a directory is one
//   change; between two, it is a change of each, and the file may be left with both names. A file
//   whose names are all lost is lost with its bytes, synced or not.
// - Staging memory is lost, or (`staging_on_disk`) any pages of it.
// What survives the death of the process: all but the durable writes under way, of which each
// sector may or may not have been written. It stays as unsynced as it was.
//
// An injected error (set_fault) leaves: of a write, some beginning; of a durable write's end, some
// sectors; of a sync, each sector durable or never durable, no matter how often sync() is called
// again. Other operations have no effect when they fail.
//
// All choices come from one seed: the same calls give the same disk. For one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/storage/sim_random.h"
#include "engine/storage/sim_tree.h"
#include "engine/storage/storage.h"

namespace valfs::storage {

struct SimDiskOptions {
  uint64_t seed = 1;
  size_t sector_size = 4096;              // or 512
  uint64_t capacity = uint64_t{1} << 30;  // bytes that files may take; ENOSPC beyond
  bool staging_on_disk = false;           // staging memory lies in the data directory, not in tmpfs
};

enum class OperationKind {
  kWrite,
  kWriteDurably,  // its start
  kCompletion,    // its end
  kSync,
  kResize,
  kReserve,
  kPunch,
  kCreate,
  kMakeDirectory,
  kRemove,
  kRename,
  kSyncDirectory,
  kMakeStaging,
  kRemoveStaging,
  // Observations, which do not change the disk, and are counted apart.
  kOpen,
  kRead,
  kInfo,
  kList,
  kFindStaging,
};

struct Operation {
  OperationKind kind;
  std::string path;  // for a file, the one that it was opened by; for a rename, the old one
  uint64_t offset;
  uint64_t length;
  uint64_t index;  // how many operations (or, for an observation, observations) came before
};

enum class CrashKind { kPowerLoss, kProcessKill };

class SimDisk final : public Storage {
 public:
  // An errno for the operation to fail with, or 0.
  using Fault = std::function<int(const Operation&)>;
  // Instead of an errno: a read ends early, as if the file did; any other operation fails with EIO.
  static constexpr int kShort = -1;

  explicit SimDisk(const SimDiskOptions& options);
  ~SimDisk() override;

  Result<std::shared_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Status make_directory(const std::string& path) override;
  Status remove(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status sync_directory(const std::string& path) override;
  Result<std::vector<std::string>> list(const std::string& path) override;
  Result<Space> space() override;
  Result<std::unique_ptr<Lock>> lock() override;
  std::string boot_id() override;
  Result<std::unique_ptr<StagingMemory>> make_staging(const std::string& name,
                                                      uint64_t size) override;
  Result<std::unique_ptr<StagingMemory>> find_staging(const std::string& name) override;
  Status remove_staging(const std::string& name) override;
  // A wait that nothing under way could end is a bug of the caller's, and aborts.
  void wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
            const std::function<bool()>& ready) override;
  size_t readers() const override { return readers_; }
  std::string description() const override { return "simulated disk"; }

  // Ends one durable write, whichever; false if none is under way.
  bool step();
  // How many are under way.
  size_t in_flight() const;

  // What happens to the disk.

  // Stops the world just before the n-th operation from now (1 is the next): that one and all after
  // it fail with EIO, until restart() says what it was.
  void cut_at(uint64_t n);
  bool powered() const { return powered_; }
  uint64_t operations() const { return operations_; }
  uint64_t observations() const { return observations_; }
  // The state after a crash, be it at the cut or now. Every File, Lock and StagingMemory from
  // before is dead: it may be dropped, files answer EIO, and durable writes still under way end
  // with EIO.
  void restart(CrashKind kind);
  // A disk as restart() would leave this one, which goes on as it was. Cheap.
  std::unique_ptr<SimDisk> clone_after_power_loss(uint64_t seed) const;
  std::unique_ptr<SimDisk> clone_after_process_kill(uint64_t seed) const;
  // So many crashes there have been in this process, of all disks.
  static uint64_t crashes();
  // Has the engine read with so many threads: for that the disk is good, else it is for one only.
  // The order of reads is then anybody's guess.
  void set_readers(size_t count) { readers_ = count; }
  // Is asked about every operation. Empty: no faults.
  void set_fault(Fault fault) { fault_ = std::move(fault); }

  // What a test does behind the engine's back: durable at once, not counted, never failing for want
  // of power.

  std::vector<std::string> files() const { return tree_.files(); }
  Result<std::vector<std::byte>> contents(const std::string& path) const;
  Status corrupt(const std::string& path, uint64_t offset, std::span<const std::byte> bytes);
  Status flip_bit(const std::string& path, uint64_t bit);
  Status truncate(const std::string& path, uint64_t size);
  Status erase(const std::string& path);

 private:
  class OpenedFile;
  class HeldLock;
  class SimMemory;
  struct Pages;
  struct DurableWrite;

  static constexpr uint64_t kNever = std::numeric_limits<uint64_t>::max();

  int begin(OperationKind kind, const std::string& path, uint64_t offset = 0, uint64_t length = 0);
  Status permit(OperationKind kind, const std::string& path, const char* action);
  uint64_t available() const;
  Status complete(DurableWrite& write);

  void stop();
  void detach_staging();
  void lose_staging();
  void apply_in_flight(CrashKind kind);
  std::unique_ptr<SimDisk> clone_after(CrashKind kind, uint64_t seed) const;

  const SimDiskOptions options_;
  SimRandom random_;
  SimTree tree_;
  std::vector<DurableWrite> in_flight_;
  std::vector<DurableWrite> interrupted_;  // by the cut; their completions have been called
  std::map<std::string, std::shared_ptr<Pages>> staging_;

  bool powered_ = true;
  uint64_t cut_ = kNever;  // the index of the operation that never comes
  uint64_t operations_ = 0;
  uint64_t observations_ = 0;
  uint64_t life_ = 1;  // raised by each restart; what belongs to an earlier one is dead
  uint64_t boot_ = 1;
  uint64_t name_;             // of this disk and its clones, for the boot id
  uint64_t lock_holder_ = 0;  // the life that holds the lock, or 0
  Fault fault_;
  size_t readers_ = 1;
  std::mutex reading_;
};

}  // namespace valfs::storage
