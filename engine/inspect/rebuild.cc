// A superblock made from what the log says.
#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>

#include "engine/base/crc32c.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/inspect/check.h"
#include "engine/log/staging.h"

namespace valfs::inspect {
namespace {

using log::Superblock;

// Epochs and file ids that may have been used by mounts of which no log file is left: bytes that
// they left on the disk must not match what comes.
constexpr log::Epoch kEpochMargin = 16;
constexpr log::FileId kFileMargin = 1024;

// The volume that most headers name.
std::optional<log::VolumeId> volume_of(const LogReader& reader) {
  std::map<std::string, std::pair<size_t, log::VolumeId>> votes;
  for (const LogReader::Entry& entry : reader.files()) {
    if (!entry.identity.header) continue;
    auto& vote = votes[entry.identity.header->volume.text()];
    vote.first++;
    vote.second = entry.identity.header->volume;
  }
  const auto most = std::max_element(votes.begin(), votes.end(), [](const auto& a, const auto& b) {
    return a.second.first < b.second.first;
  });
  if (most == votes.end()) return std::nullopt;
  return most->second.second;
}

void read_log(const LogReader& reader, Superblock& superblock) {
  for (const LogReader::Entry& entry : reader.files()) {
    if (entry.identity.salt.volume != superblock.volume.salt()) continue;
    superblock.epoch = std::max(superblock.epoch, entry.file->epoch);
    superblock.next_file = std::max(superblock.next_file, entry.file->id + kFileMargin);
    LogReader::Visitor visitor;
    visitor.group = [&](const recovery::FoundGroup& group) {
      superblock.durable_group = std::max(superblock.durable_group, group.header.watermark);
      superblock.next_record = std::max(superblock.next_record, group.header.next_record);
      superblock.next_object = std::max(superblock.next_object, group.header.next_object);
      return true;
    };
    visitor.record = [&](const log::Record& record, log::Position, bool) {
      if (log::is_compressed(record)) superblock.incompat |= Superblock::kCompressedRecords;
      superblock.next_record = std::max(superblock.next_record, record.sequence + 1);
      superblock.next_object = std::max(superblock.next_object, log::youngest_object(record) + 1);
      return true;
    };
    LogReader::scan(entry, visitor);
  }
}

// Slots of a daemon that was killed: their header knows the epoch of its mount.
bool read_staging_header(storage::Storage& storage, Superblock& superblock) {
  const auto memory = storage.find_staging(recovery::staging_name(superblock.volume));
  if (!memory || (*memory)->bytes().size() < sizeof(log::StagingHeader)) return false;
  log::StagingHeader head;
  std::memcpy(&head, (*memory)->bytes().data(), sizeof head);
  const auto checked = log::bytes_of(head).first(offsetof(log::StagingHeader, crc));
  if (head.magic != log::StagingHeader::kMagic || head.crc != crc32c(checked) ||
      head.volume != superblock.volume || head.epoch < superblock.epoch) {
    return false;
  }
  superblock.epoch = head.epoch;
  return true;
}

// The newest checkpoint that is whole and knows nothing that the log does not.
void find_checkpoint(storage::Storage& storage, Superblock& superblock) {
  const auto names = storage.list("checkpoint").value_or(std::vector<std::string>{});
  for (auto name = names.rbegin(); name != names.rend() && superblock.checkpoint == 0; ++name) {
    uint64_t generation = 0;
    const auto parsed = std::from_chars(name->data(), name->data() + name->size(), generation, 16);
    if (parsed.ec != std::errc() || generation == 0) continue;
    index::Index index;
    const auto moment = checkpoint::read_checkpoint(storage, superblock.volume, generation, index);
    if (!moment || moment->next_record > superblock.next_record) continue;
    bool ahead = false;
    index.for_each_inode(
        [&](const index::Inode& inode) { ahead |= inode.sequence >= superblock.next_record; });
    if (!ahead) superblock.checkpoint = generation;
  }
}

}  // namespace

Result<Superblock> rebuild_superblock(storage::Storage& storage) {
  const auto reader = LogReader::open(storage);
  if (!reader || reader->files().empty()) {
    return fail(ENOENT, "there is no log file that could say anything about a volume");
  }
  const auto volume = volume_of(*reader);
  if (!volume) {
    return fail(EINVAL,
                "super: no superblock, and no header of a log file is whole, so that nothing names "
                "the volume; `valfs salvage` gets out what its records hold");
  }
  Superblock superblock;
  superblock.volume = *volume;
  superblock.next_object = index::kFirstObject;
  read_log(*reader, superblock);
  for (const std::string& path : list_tree(storage, "bin")) {
    const std::string name = path.substr(path.rfind('/') + 1);
    log::ObjectId id = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), id, 16);
    if (parsed.ec == std::errc()) superblock.next_object = std::max(superblock.next_object, id + 1);
  }
  if (read_staging_header(storage, superblock)) {
    superblock.incompat |= Superblock::kCompressedRecords;  // there may be some in the slots
    superblock.clean = 0;
    superblock.set_boot_id(storage.boot_id());
  } else {
    superblock.epoch += kEpochMargin;
  }
  find_checkpoint(storage, superblock);
  return superblock;
}

}  // namespace valfs::inspect
