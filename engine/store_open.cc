// How a store begins and ends.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <random>

#include "engine/base/planted.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/recovery/file_scan.h"
#include "engine/recovery/lost_files.h"
#include "engine/recovery/nameless.h"
#include "engine/recovery/quarantine.h"
#include "engine/rooms.h"

namespace valfs {
namespace {

using log::Superblock;

// What may lie in a data directory before there is a volume in it.
bool is_our_own(const std::string& name) {
  return name == "lock" || name == "staging" || name.rfind("super", 0) == 0 ||
         name.rfind("valfs.log", 0) == 0 || name == "lost+found" || name == "wal" ||
         name == "bin" || name == "gc" || name == "checkpoint";
}

Status make_rooms(storage::Storage& storage) {
  for (const char* name : {"wal", "bin", "gc", "checkpoint"}) {
    VALFS_TRY(storage.make_directory(name));
  }
  return storage.sync_directory("");
}

Result<Superblock> create_volume(storage::Storage& storage) {
  VALFS_ASSIGN(const auto names, storage.list(""));
  for (const std::string& name : names) {
    if (!is_our_own(name)) {
      return fail(ENOTEMPTY, "not a valfs data directory, and not empty (it holds " + name + ")");
    }
  }
  // Without its superblock an old volume looks like none: its log must not be taken for rubbish.
  if (const auto ids = recovery::list_log_files(storage); ids && !ids->empty()) {
    return fail(EINVAL,
                "the superblock (the file super) is missing, but there are log files; put it back "
                "from a copy of the data directory, or let `valfs fsck --repair` rebuild it");
  }
  // The rooms first: whoever finds a superblock finds them too.
  VALFS_TRY(make_rooms(storage));
  Superblock superblock;
  std::random_device random;
  for (uint8_t& byte : superblock.volume.bytes) byte = static_cast<uint8_t>(random());
  VALFS_TRY(log::create_superblock(storage, superblock));
  return superblock;
}

Result<Superblock> find_volume(storage::Storage& storage, bool create) {
  auto superblock = log::read_superblock(storage);
  if (superblock || superblock.error().code != ENOENT) return superblock;
  if (!create) return fail(ENOENT, "there is no valfs volume in this directory");
  return create_volume(storage);
}

Time wall_clock() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return {now.tv_sec, static_cast<uint32_t>(now.tv_nsec)};
}

// Durable before this mount writes anything else: the new epoch, and where the old log ends.
Status raise_epoch(Core& core, recovery::Recovered& recovered) {
  // What recovery has read may only be in the page cache, if just the daemon was killed.
  for (const log::LogFileRef& file : core.files.all()) {
    if (planted(Bug::kDrainAtEndOnly)) continue;
    if (file->last_group > recovered.checkpoint_covers) VALFS_TRY(file->file->sync());
  }
  if (recovered.cuts.size() > Superblock::kMaxCuts) {
    VALFS_TRY(core.files.trim_sealed());
    recovered.cuts.clear();
  }
  const std::lock_guard lock(core.superblock_mutex);
  Superblock& superblock = core.superblock;
  if (!planted(Bug::kReuseEpoch)) superblock.epoch++;
  if (!planted(Bug::kCleanForEver)) superblock.clean = 0;
  if (!planted(Bug::kOldBootId)) superblock.set_boot_id(core.storage.boot_id());
  superblock.durable_group = recovered.start.next_group - 1;
  superblock.next_record = recovered.start.next_record;
  superblock.next_object = recovered.start.next_object;
  superblock.next_file = recovered.next_file;
  superblock.cut_count = static_cast<uint32_t>(recovered.cuts.size());
  std::copy(recovered.cuts.begin(), recovered.cuts.end(), superblock.cuts.begin());
  if (planted(Bug::kForgetCuts)) superblock.cut_count = 0;
  if (planted(Bug::kEpochInMemory)) return {};
  return log::write_superblock(core.storage, superblock);
}

Status remove_unused(Core& core, recovery::Recovered& recovered) {
  const auto remove = [&](const std::string& path) -> Status {
    VALFS_TRY(core.storage.remove(path));
    return core.storage.sync_directory(path.substr(0, path.rfind('/')));
  };
  for (const log::FileId id : recovered.unused) VALFS_TRY(remove(log::log_file_path(id)));
  // A file that was being prepared holds zeros. Whatever else is in one may be of use to somebody.
  for (const log::FileId id : recovered.unrecognised) {
    const std::string path = log::log_file_path(id);
    bool zeros = false;
    {
      VALFS_ASSIGN(const auto file, core.storage.open(path, storage::OpenMode::kRead));
      VALFS_ASSIGN(const auto info, file->info());
      zeros = recovery::is_all_zeros(*file, 0, info.size);
    }
    if (zeros || planted(Bug::kDeleteUnrecognised)) {
      VALFS_TRY(remove(path));
      continue;
    }
    VALFS_ASSIGN(const std::string target,
                 recovery::set_aside(core.storage, recovered.quarantine, path));
    recovered.warnings.push_back(path + ": nothing in it says that it is a log file; moved to " +
                                 target);
  }
  return {};
}

// A group could not be written: what is not durable goes elsewhere, and the index with it.
void relocate(Core& core) {
  spdlog::error("a write of the log has failed; what it held moves to a fresh log file");
  {
    const std::lock_guard lock(core.superblock_mutex);
    for (const log::Cut& cut : core.writer->unwritten()) {
      if (!planted(Bug::kMoveWithoutCut)) core.superblock.add_cut(cut);
    }
    const auto written = log::write_superblock(core.storage, core.superblock);
    if (!written) return core.writer->give_up(written.error());
  }
  const std::unique_lock lock(core.state);
  core.writer->relocate([&](const log::Record& record, log::Position from, log::Position to) {
    if (planted(Bug::kMoveLeavesIndex)) return;
    core.index.relocate(record, from,
                        {to, record.meta_length(), static_cast<uint32_t>(record.payload.size())});
  });
}

Status start_log(Core& core, const recovery::Recovered& recovered) {
  const StoreOptions& options = core.options;
  const uint64_t bytes = log::Staging::bytes_needed(options.slots + 1, options.slot_size);
  VALFS_ASSIGN(auto memory,
               core.storage.make_staging(recovery::staging_name(core.superblock.volume), bytes));
  core.staging =
      std::make_unique<log::Staging>(std::move(memory), core.superblock.volume,
                                     core.superblock.epoch, options.slots + 1, options.slot_size);
  core.files.begin(core.superblock.epoch, recovered.next_file,
                   {0, options.slot_size / 6, [&core] { return core.available_bytes(); }});
  core.writer = std::make_unique<log::LogWriter>(
      core.storage, core.files, *core.staging, recovered.start, core.clock, options.group_records);
  core.writer->on_trouble([&core] { relocate(core); });
  return {};
}

// Damage may have taken the attributes of an inode whose name and bytes are there: it gets some.
Status restore_attributes(Core& core, const std::vector<log::ObjectId>& unsound,
                          std::vector<std::string>& warnings) {
  for (const log::ObjectId id : unsound) {
    const index::Inode inode = *core.index.find(id);
    if (inode.base) continue;
    if (!inode.has_names()) {
      if (inode.extents().empty() && inode.child_count() == 0) core.index.drop(id);
      continue;
    }
    warnings.push_back(core.index.path_of(id) + ": its attributes are lost, and made up");
    index::Attributes attributes = inode.attributes;
    attributes.mode = inode.child_count() == 0 ? 0100600 : 0040700;
    attributes.links = inode.child_count() == 0 ? 0 : 1;
    attributes.uid = core.options.root_uid;
    attributes.gid = core.options.root_gid;
    attributes.links += static_cast<uint32_t>(core.index.count_names(inode));
    VALFS_ASSIGN(auto transaction, Transaction::begin(core, Transaction::Size::of(1, 0, 0),
                                                      log::LogWriter::Purpose::kCleaner));
    transaction.put(id, attributes);
    transaction.commit({});
  }
  return {};
}

// The root of a new volume, and whatever recovery found that nobody can use any more.
Status tidy_index(Core& core, recovery::Recovered& recovered) {
  std::vector<std::string>& warnings = recovered.warnings;
  const std::vector<log::ObjectId> unsound = core.index.unsound();
  VALFS_TRY(restore_attributes(core, unsound, warnings));
  for (const log::ObjectId id : unsound) {
    const auto inode = core.index.find(id);
    if (inode == nullptr || !inode->base || inode->attributes.links != 0) continue;
    const log::ObjectId blob = inode->attributes.blob;
    VALFS_ASSIGN(auto transaction, Transaction::begin(core, Transaction::Size::of(2, 0, 0),
                                                      log::LogWriter::Purpose::kCleaner));
    transaction.remove(id);
    if (blob != 0) transaction.remove(blob);
    transaction.commit({});
  }
  const auto root = core.index.find(index::kRoot);
  if (root != nullptr && root->base) {
    return recovery::name_the_nameless(core, recovered, wall_clock(), warnings);
  }
  index::Attributes attributes;
  attributes.mode = 0040755;
  attributes.links = 2;
  attributes.uid = core.options.root_uid;
  attributes.gid = core.options.root_gid;
  const Time now = wall_clock();
  attributes.set_accessed(now);
  attributes.touch(now);
  attributes.set_born(now);
  VALFS_ASSIGN(auto transaction, Transaction::begin(core, Transaction::Size::of(1, 0, 0),
                                                    log::LogWriter::Purpose::kCleaner));
  transaction.put(index::kRoot, attributes);
  transaction.commit(now);
  return core.writer->sync();
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(std::unique_ptr<storage::Storage> storage,
                                           const StoreOptions& options) {
  VALFS_ASSIGN(auto lock, storage->lock());
  VALFS_ASSIGN(const Superblock superblock, find_volume(*storage, options.create));
  VALFS_TRY(make_rooms(*storage));
  auto rooms =
      std::make_unique<Rooms>(std::move(storage), std::move(lock), options, superblock.volume);
  Core& core = rooms->core;
  core.superblock = superblock;
  recovery::RecoverOptions how;
  if (options.accept_missing_log_files) how.missing = recovery::MissingFile::kAccept;
  VALFS_ASSIGN(rooms->recovered,
               recovery::recover(core.storage, superblock, core.files, core.index, how));
  recovery::Recovered& recovered = rooms->recovered;
  VALFS_TRY(raise_epoch(core, recovered));
  recovered.quarantine = "mount-" + std::to_string(core.superblock.epoch);
  VALFS_TRY(remove_unused(core, recovered));
  core.newest_freed = recovered.newest_freed;
  core.checkpoint_bytes = checkpoint::checkpoint_bytes(core.storage);
  rooms->blobs.expect(recovered);
  VALFS_TRY(start_log(core, recovered));
  rooms->checkpointer.start(recovered.checkpoint_covers, recovered.replayed_bytes);
  rooms->upkeep.adapt_file_size();
  // A new volume needs room for more than its reserve. An old one may have used its last room; what
  // frees some must still be possible.
  const bool fresh = core.index.find(index::kRoot) == nullptr;
  if (auto prepared = fresh ? core.files.prepare(3) : core.files.prepare(1, true); !prepared) {
    if (prepared.error().code != ENOSPC) return tl::unexpected(prepared.error());
    // Whoever tries again elsewhere does not want to find this disk full.
    VALFS_TRY(core.files.remove_spares());
    VALFS_TRY(core.storage.remove_staging(recovery::staging_name(core.superblock.volume)));
    return fail(ENOSPC, "no room for a log file in the data directory: " + prepared.error().what);
  }
  if (recovered.lost_any()) {
    VALFS_TRY(recovery::record_lost_files(core, rooms->checkpointer, recovered));
  }
  VALFS_TRY(tidy_index(core, recovered));
  VALFS_TRY(rooms->blobs.start(recovered, recovered.warnings));
  if (options.background) rooms->upkeep.start();
  return std::unique_ptr<Store>(new Store(std::move(rooms)));
}

Status Store::close() {
  Rooms& rooms = *rooms_;
  if (rooms.closed) return {};
  rooms.closed = true;
  rooms.upkeep.stop();
  Core& core = rooms.core;
  // One value that cannot be flushed does not keep the rest from being committed.
  const Status flushed = rooms.upkeep.flush_blobs(true);
  for (const log::ObjectId inode : rooms.blobs.unfinished()) {
    // Chunks that cannot be summed now stay unchecked until the next mount has tried.
    if (auto summed = rooms.blobs.sum_anew(inode); !summed) {
      spdlog::warn("large value {}: {}", inode, summed.error().what);
    }
  }
  {
    const std::unique_lock state(core.state);
    core.writer->rotate();
  }
  if (core.writer->appended() > rooms.checkpointer.covers()) {
    // Without a checkpoint (the disk may be full) the next mount reads the log: slower, not wrong.
    if (auto taken = rooms.checkpointer.run(); !taken) {
      spdlog::warn("no checkpoint at unmount: {}", taken.error().what);
    }
  }
  VALFS_TRY(core.writer->sync());
  core.run_deferred();
  if (!planted(Bug::kCloseForgetsErrors)) VALFS_TRY(flushed);
  VALFS_TRY(core.files.remove_spares());
  const std::lock_guard lock(core.superblock_mutex);
  core.superblock.clean = 1;
  core.superblock.durable_group = core.writer->durable();
  core.superblock.next_record = core.writer->next_record();
  core.superblock.next_object = core.writer->next_object();
  core.superblock.next_file = core.files.next_file();
  VALFS_TRY(log::write_superblock(core.storage, core.superblock));
  return core.storage.remove_staging(recovery::staging_name(core.superblock.volume));
}

}  // namespace valfs
