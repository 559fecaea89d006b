#include "engine/recovery/lost_files.h"

#include "engine/transaction.h"

namespace valfs::recovery {
namespace {

constexpr auto kPurpose = log::LogWriter::Purpose::kCleaner;

class LostFiles {
 public:
  LostFiles(Core& core, std::vector<std::string>& warnings) : core_(core), warnings_(warnings) {}

  Status rescue() {
    find();
    for (const log::ObjectId id : inodes_) VALFS_TRY(rescue_inode(id));
    for (const auto& [parent, name] : names_) VALFS_TRY(rescue_name(parent, name));
    for (const log::ObjectId id : sums_) VALFS_TRY(rescue_sums(id));
    return {};
  }

 private:
  // Its file is missing, or was cut off before it, or it had been copied to where it is lost.
  bool is_lost(log::Position record) const {
    if (!record) return false;
    const log::LogFileRef file = core_.files.find(record.file());
    if (!file) return true;
    const log::LogFile now = core_.files.state_of(*file);
    return record.offset() < now.begin || record.offset() >= now.end;
  }

  void find() {
    core_.index.for_each_inode([this](const index::Inode& inode) {
      bool lossy = false;
      for (const index::Extent& extent : inode.extents().all()) lossy |= is_lost(extent.record);
      if (inode.sums && lossy) sums_.push_back(inode.id);
      if (inode.sums) return;
      if (lossy) {
        marked_.push_back(inode.id);
        warnings_.push_back(core_.index.path_of(inode.id) +
                            ": bytes of it were in a log file that is lost; they answer EIO");
      }
      if (lossy || is_lost(inode.base)) inodes_.push_back(inode.id);
    });
    for (const log::ObjectId id : marked_) {
      core_.index.update(id, [](index::Inode& inode) { inode.lossy = true; });
    }
    core_.index.for_each_name([this](const index::Name& name) {
      if (is_lost(name.record)) names_.emplace_back(name.parent, name.name);
    });
  }

  Status rescue_inode(log::ObjectId id) {
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(core_, Transaction::Size::of(1, 0, 0), kPurpose));
    transaction.put(id, index::Attributes(transaction.index().find(id)->attributes));
    transaction.commit({});
    return {};
  }

  // The same entry, so that its directory's times stay what they were.
  Status rescue_name(log::ObjectId parent, const std::string& text) {
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(core_, Transaction::Size::of(1, text.size(), 0), kPurpose));
    const auto name = transaction.index().find(parent, text);
    log::Record record;
    record.type = log::RecordType::kName;
    record.flags = log::kCopy;
    record.id = name->cookie;
    record.a = name->inode;
    record.b = parent;
    record.name = text;
    transaction.add(record);
    transaction.commit({});
    return {};
  }

  Status rescue_sums(log::ObjectId id) {
    std::vector<std::pair<uint64_t, uint64_t>> runs;
    const auto sums = core_.index.find(id);
    for (const index::Extent& extent : sums->extents().all()) {
      if (is_lost(extent.record)) runs.emplace_back(extent.offset, extent.length);
    }
    for (const auto& [offset, length] : runs) {
      VALFS_ASSIGN(auto transaction,
                   Transaction::begin(core_, Transaction::Size::of(1, 0, 0), kPurpose));
      transaction.zero(id, offset, length);
      transaction.commit({});
    }
    warnings_.push_back("chunk sums of blob " + std::to_string(id) +
                        " are lost: what they stood for is unchecked until it is summed anew");
    return {};
  }

  Core& core_;
  std::vector<std::string>& warnings_;
  std::vector<log::ObjectId> inodes_;
  std::vector<log::ObjectId> marked_;  // with bytes that are lost
  std::vector<std::pair<log::ObjectId, std::string>> names_;
  std::vector<log::ObjectId> sums_;
};

}  // namespace

Status record_lost_files(Core& core, checkpoint::Checkpointer& checkpointer, Recovered& recovered) {
  VALFS_TRY(LostFiles(core, recovered.warnings).rescue());
  // The checkpoint first: once the manifest says that the files are gone, nobody asks for them.
  VALFS_TRY(checkpointer.run());
  const uint64_t entries = (core.files.usage().files + 4) * sizeof(log::ManifestEntry);
  {
    VALFS_ASSIGN(auto transaction,
                 Transaction::begin(core, Transaction::Size::of(1, 0, entries), kPurpose));
    transaction.manifest(core.files.manifest(core.newest_freed, 0));
    transaction.commit({});
  }
  VALFS_TRY(core.writer->sync());
  // Should that manifest be damaged one day, they are still not missed.
  const std::lock_guard lock(core.superblock_mutex);
  for (const log::FileId id : recovered.lost_files) {
    if (!core.files.find(id)) core.superblock.note_freed(id);
  }
  return log::write_superblock(core.storage, core.superblock);
}

}  // namespace valfs::recovery
