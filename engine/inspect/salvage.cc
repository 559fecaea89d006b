#include "engine/inspect/salvage.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "engine/base/check.h"
#include "engine/blob/chunk_sums.h"
#include "engine/inspect/check.h"
#include "engine/log/payload_reader.h"
#include "engine/log/staging.h"

namespace valfs::inspect {
namespace {

std::optional<uint64_t> hex_name(const std::string& path, size_t digits) {
  const std::string name = path.substr(path.rfind('/') + 1);
  uint64_t value = 0;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data(), end, value, 16);
  if (name.size() != digits || parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
  return value;
}

// The youngest whole file of a group counts: a failed write was moved to a fresh one.
struct Best {
  bool whole = false;
  log::FileId file = 0;
  friend auto operator<=>(const Best&, const Best&) = default;
};

}  // namespace

// A record without its payload, and where in the order of things it stands.
struct Salvage::Kept {
  log::RecordSequence sequence = 0;
  log::GroupSequence group = 0;  // that it lies in; in a damaged stretch, the one before
  Best place;
  bool grouped = false;
  log::Position position;
  log::Salt salt;
  std::vector<std::byte> meta;
};

Result<std::unique_ptr<Salvage>> Salvage::read(storage::Storage& storage) {
  std::unique_ptr<Salvage> salvage(new Salvage(storage));
  VALFS_TRY(salvage->find_files());
  salvage->take_staged_groups();
  salvage->apply(salvage->collect());
  return salvage;
}

Status Salvage::find_files() {
  VALFS_TRY(dry_.list(""));
  for (const std::string& path : list_tree(dry_, "")) {
    // A mount that found damage has set aside what nothing led to.
    const bool lost = path.ends_with(".lost");
    const std::string plain = lost ? path.substr(0, path.rfind('.')) : path;
    if (const auto blob = hex_name(plain, 16)) {
      // Checkpoints are named like blobs, and lie in a directory of their own.
      if (path.rfind("checkpoint/", 0) != 0) blobs_.emplace(*blob, path);
      continue;
    }
    auto file = dry_.open(path, storage::OpenMode::kRead);
    if (!file) continue;
    const auto id = hex_name(path, 8);
    const auto info = (*file)->info();
    // A file of another name counts only if it says itself that it is a log file.
    if (!id && (!info || !identify(**file, info->size))) continue;
    reader_.add(std::move(*file), path, static_cast<log::FileId>(id.value_or(0)));
  }
  choose_volume();
  reader_.guess_unidentified();
  const auto superblock = log::read_superblock(dry_);
  reader_.leave_out_freed(superblock ? superblock->durable_group : 0);
  for (const auto& entry : reader_.unidentified()) {
    remarks_.push_back(entry.path + ": nothing in it can be read");
  }
  if (reader_.files().empty()) return fail(ENOENT, "there is no log file that can be read");
  return {};
}

// The one that most files belong to.
void Salvage::choose_volume() {
  std::map<uint32_t, size_t> votes;
  for (const auto& entry : reader_.files()) votes[entry.identity.salt.volume]++;
  if (votes.size() < 2) return;
  const auto most = std::max_element(
      votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  LogReader chosen;
  for (const auto& entry : reader_.files()) {
    if (entry.identity.salt.volume != most->first) {
      remarks_.push_back(entry.path + ": a log file of another volume, left out");
      continue;
    }
    chosen.add(entry.file->file, entry.path, entry.file->id);
  }
  for (const auto& entry : reader_.unidentified()) {
    chosen.add(entry.file->file, entry.path, entry.file->id);
  }
  reader_ = std::move(chosen);
}

// To where they were bound for, in memory only.
void Salvage::take_staged_groups() {
  const auto superblock = rebuild_superblock(dry_);
  if (!superblock || superblock->clean != 0) return;
  const auto memory = dry_.find_staging(recovery::staging_name(superblock->volume));
  if (!memory) return;
  const auto groups = log::read_staging((*memory)->bytes(), superblock->volume, superblock->epoch,
                                        superblock->next_record, superblock->next_object);
  if (!groups) return;
  for (const log::StagedGroup& group : *groups) {
    const auto file =
        dry_.open(log::log_file_path(group.place.salt.file), storage::OpenMode::kReadWrite);
    if (!file || !(*file)->write(group.place.offset, group.image)) {
      remarks_.push_back("staged group " + std::to_string(group.place.sequence) +
                         ": its log file is missing");
    }
  }
}

std::vector<Salvage::Kept> Salvage::collect() {
  const auto superblock = log::read_superblock(dry_);
  std::vector<Kept> kept;
  for (const LogReader::Entry& entry : reader_.files()) {
    const auto cut = superblock ? superblock->cut_of(entry.file->id) : std::nullopt;
    const uint64_t end = cut.value_or(UINT64_MAX);
    Kept place;  // of the record that comes
    LogReader::Visitor visitor;
    visitor.group = [&](const recovery::FoundGroup& group) {
      place.group = group.header.sequence;
      place.place = {group.whole, entry.file->id};
      place.grouped = true;
      return group.offset < end;
    };
    visitor.damage = [&](const Damage& damage) {
      if (damage.begin >= end) return false;
      if (damage.kind == Damage::Kind::kStretch) place.grouped = false;
      damages_.push_back(damage);
      return true;
    };
    visitor.record = [&](const log::Record& record, log::Position position, bool) {
      Kept one = place;
      one.sequence = record.sequence;
      one.position = position;
      one.salt = entry.identity.salt;
      // The body follows the header, even if it is empty; the header has been checked.
      const std::byte* start = record.body.data() - sizeof(log::RecordHeader);
      log::RecordHeader header;
      std::memcpy(&header, start, sizeof header);
      one.meta.assign(start, start + header.meta_length);
      kept.push_back(std::move(one));
      return true;
    };
    LogReader::scan(entry, visitor);
  }
  std::map<log::GroupSequence, Best> best;
  for (const Kept& record : kept) {
    if (record.grouped) best[record.group] = std::max(best[record.group], record.place);
  }
  std::erase_if(kept, [&](const Kept& record) {
    return record.grouped && record.place.file != best[record.group].file;
  });
  return kept;
}

void Salvage::apply(std::vector<Kept> kept) {
  std::sort(kept.begin(), kept.end(), [](const Kept& a, const Kept& b) {
    if (a.sequence != b.sequence) return a.sequence < b.sequence;
    if (a.group != b.group) return a.group < b.group;
    return a.position.packed < b.position.packed;
  });
  for (const Kept& one : kept) {
    const auto found = log::decode(one.meta, one.salt, one.position.offset());
    VALFS_CHECK(found.has_value());
    const log::Record& record = found->record;
    index_.apply(record, {one.position, found->meta_length, found->payload_length},
                 index::Index::Mode::kSequenceOrder);
    if (record.type == log::RecordType::kExtent && !record.name.empty()) {
      hints_[record.id] = {record.b, std::string(record.name), record.sequence};
    }
    records_++;
  }
  for (const Damage& damage : damages_) {
    if (damage.kind != Damage::Kind::kRecord || !damage.lost) continue;
    const bool extent = damage.lost->type == log::RecordType::kExtent;
    if (!extent || index_.find(damage.lost->id) == nullptr) continue;
    index_.update(damage.lost->id, [](index::Inode& inode) { inode.damaged = true; });
  }
}

Status Salvage::read_extent(const index::Extent& extent, uint64_t skip,
                            std::span<std::byte> into) const {
  Status last = fail(EIO, log::log_file_path(extent.record.file()) + " is missing");
  for (const LogReader::Entry& entry : reader_.files()) {  // there may be copies of a file
    if (entry.file->id != extent.record.file()) continue;
    last = log::read_payload(*entry.file, entry.identity.salt, extent, skip, into);
    if (last) break;
  }
  return last;
}

void Salvage::read_extent_by_chunks(const index::Extent& extent, const Write& write,
                                    std::vector<Hole>& holes) const {
  for (uint64_t skip = 0; skip < extent.length;) {
    const uint64_t in_payload = extent.in_payload() + skip;
    std::vector<std::byte> bytes(
        std::min<uint64_t>(extent.length - skip, extent.step() - in_payload % extent.step()));
    const auto read = read_extent(extent, skip, bytes);
    if (read) {
      if (!write(extent.offset + skip, bytes)) return;
    } else if (!holes.empty() &&
               holes.back().offset + holes.back().length == extent.offset + skip) {
      holes.back().length += bytes.size();
    } else {
      holes.push_back({extent.offset + skip, bytes.size(), read.error().what});
    }
    skip += bytes.size();
  }
}

std::vector<Salvage::Hole> Salvage::read_value(const index::Inode& inode,
                                               const Write& write) const {
  if (inode.attributes.blob != 0) {
    return read_blob(inode.attributes.blob, inode.attributes.size, write);
  }
  std::vector<Hole> holes;
  if (inode.damaged) {
    holes.push_back({0, inode.attributes.size,
                     inode.lossy ? "bytes of it were in a log file that is lost"
                                 : "a record of it is lost: parts may be older, or missing"});
  }
  for (const index::Extent& extent : inode.extents().all()) {
    std::vector<std::byte> bytes(extent.length);
    if (read_extent(extent, 0, bytes)) {
      if (!write(extent.offset, bytes)) break;
    } else {
      read_extent_by_chunks(extent, write, holes);
    }
  }
  return holes;
}

uint64_t Salvage::blob_size(log::ObjectId blob) const {
  const auto path = blobs_.find(blob);
  if (path == blobs_.end()) return 0;
  const auto file = dry_.open(path->second, storage::OpenMode::kRead);
  const auto info = file ? (*file)->info() : fail(EIO, "");
  return info ? info->size : 0;
}

std::vector<Salvage::Hole> Salvage::read_blob(log::ObjectId blob, uint64_t size,
                                              const Write& write) const {
  const auto path = blobs_.find(blob);
  if (path == blobs_.end()) return {{0, size, "its file in bin/ is missing"}};
  const auto file = dry_.open(path->second, storage::OpenMode::kRead);
  if (!file) return {{0, size, file.error().what}};
  blob::ChunkSums sums;
  if (const auto inode = index_.find(blob)) {
    for (const index::Extent& extent : inode->extents().all()) {
      std::vector<uint32_t> run(extent.length / sizeof(uint32_t));
      if (!read_extent(extent, 0, std::as_writable_bytes(std::span(run)))) continue;
      for (size_t i = 0; i < run.size(); i++) {
        sums.set(extent.offset / sizeof(uint32_t) + i, run[i]);
      }
    }
  }
  std::vector<Hole> holes;
  const auto info = (*file)->info();
  const uint64_t end = std::min(size, info ? info->size : 0);  // behind it is a hole
  for (uint64_t at = 0; at < end; at += kValueChunk) {
    std::vector<std::byte> bytes(std::min(kValueChunk, size - at));
    const auto got = (*file)->read(at, bytes);
    const uint32_t sum = sums.get(at / kValueChunk);
    const bool good = got && (sum == 0 || sum == blob::chunk_sum(bytes));
    if (good) {
      if (!write(at, bytes)) break;
    } else if (!holes.empty() && holes.back().offset + holes.back().length == at) {
      holes.back().length += bytes.size();
    } else {
      holes.push_back({at, bytes.size(),
                       path->second +
                           (got ? ": a chunk does not match its sum at offset "
                                : ": the disk cannot read it at offset ") +
                           std::to_string(at)});
    }
  }
  for (const auto& [first, run] : sums.ranges()) {
    const uint64_t from = std::max(end, first * kValueChunk);
    const uint64_t to = std::min(size, (first + run.size()) * kValueChunk);
    if (from < to) holes.push_back({from, to - from, path->second + ": the file is too short"});
  }
  return holes;
}

std::vector<std::pair<log::ObjectId, std::string>> Salvage::nameless_blobs() const {
  std::set<log::ObjectId> named;
  index_.for_each_inode([&](const index::Inode& inode) {
    if (inode.attributes.blob != 0) named.insert(inode.attributes.blob);
  });
  std::vector<std::pair<log::ObjectId, std::string>> result;
  for (const auto& [id, path] : blobs_) {
    if (named.count(id) == 0) result.emplace_back(id, path);
  }
  return result;
}

}  // namespace valfs::inspect
