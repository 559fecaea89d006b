#include "engine/inspect/log_reader.h"

#include <algorithm>
#include <cstring>

#include "engine/base/crc32c.h"
#include "engine/log/superblock.h"

namespace valfs::inspect {
namespace {

using log::GroupHeader;
using log::kBlock;
using recovery::FoundGroup;

constexpr uint64_t kWindow = 1 << 20;

std::optional<log::LogFileHeader> read_header(storage::File& file) {
  bool unreadable = false;
  const auto block = recovery::read_stretch(file, 0, kBlock, unreadable);
  log::LogFileHeader header;
  std::memcpy(&header, block.data(), sizeof header);
  const auto checked = log::bytes_of(header).first(offsetof(log::LogFileHeader, crc));
  if (header.magic != log::LogFileHeader::kMagic || header.crc != crc32c(checked)) {
    return std::nullopt;
  }
  return header;
}

// A group header says of which volume, file and epoch it is, and its CRC is salted with just that.
std::optional<log::Salt> salt_from_groups(storage::File& file, uint64_t size) {
  for (uint64_t window = 0; window < size; window += kWindow) {
    bool unreadable = false;
    const auto bytes =
        recovery::read_stretch(file, window, std::min(window + kWindow, size), unreadable);
    for (uint64_t at = 0; at + kBlock <= bytes.size(); at += kBlock) {
      GroupHeader header;
      std::memcpy(&header, bytes.data() + at, sizeof header);
      if (header.magic != GroupHeader::kMagic) continue;
      const log::Salt salt{header.volume_salt, header.file, header.epoch};
      if (log::decode_group_header(std::span(bytes).subspan(at), salt, window + at)) return salt;
    }
  }
  return std::nullopt;
}

Damage damage_at(Damage::Kind kind, const FoundGroup& group, uint64_t begin, uint64_t end) {
  Damage damage;
  damage.kind = kind;
  damage.file = group.file->id;
  damage.begin = group.offset + begin;
  damage.end = group.offset + end;
  damage.group = group.header.sequence;
  return damage;
}

// Records of a stretch that has no good group header.
bool visit_stretch(const recovery::Stretch& stretch, const log::Salt& salt,
                   const LogReader::Visitor& visitor) {
  Damage damage;
  damage.kind = Damage::Kind::kStretch;
  damage.file = stretch.file->id;
  damage.begin = stretch.begin;
  damage.end = stretch.end;
  if (visitor.damage && !visitor.damage(damage)) return false;
  if (!visitor.record) return true;
  bool unreadable = false;
  const auto bytes =
      recovery::read_stretch(*stretch.file->file, stretch.begin, stretch.end, unreadable);
  for (const auto& entry : log::find_records(bytes, salt, stretch.begin)) {
    const auto position = log::Position::at(stretch.file->id, stretch.begin + entry.offset);
    if (!visitor.record(entry.found.record, position, entry.payload_good)) return false;
  }
  return true;
}

// True if it is as the groups are. Those in front of the first that is left were freed.
bool is_right(const log::Footer& footer, const std::vector<FoundGroup>& groups) {
  if (groups.empty()) return false;
  auto entry = footer.groups.begin();
  while (entry != footer.groups.end() && entry->offset * kBlock < groups.front().offset) ++entry;
  const auto left = std::vector<log::FooterGroup>(entry, footer.groups.end());
  const bool same = std::equal(
      left.begin(), left.end(), groups.begin(), groups.end(), [](const auto& a, const auto& b) {
        return a.offset * kBlock == b.offset && a.length * kBlock == b.length &&
               a.sequence == b.header.sequence && a.crc == b.header.crc;
      });
  return same && footer.end == groups.back().offset + groups.back().length;
}

// Where what is no group begins at the end of a file, it may be a footer, or what is left of one.
std::optional<FooterPlace> footer_of(const LogReader::Entry& entry,
                                     const recovery::FileScan& scan) {
  FooterPlace place;
  place.file = entry.file->id;
  place.begin = entry.begin;
  if (!scan.groups.empty()) place.begin = scan.groups.back().offset + scan.groups.back().length;
  place.end = entry.end;
  storage::File& file = *entry.file->file;
  if (auto footer = log::read_footer(file, entry.identity.salt, entry.end)) {
    place.begin = footer->end;
    place.right = is_right(*footer, scan.groups);
    place.footer = std::move(footer);
    return place;
  }
  bool unreadable = false;
  for (uint64_t at = place.begin; at + kBlock <= place.end; at += kBlock) {
    if (at > place.begin + kWindow) break;  // no footer is that long
    const auto block = recovery::read_stretch(file, at, at + kBlock, unreadable);
    if (!log::looks_like_footer(block)) continue;
    place.begin = at;
    return place;
  }
  return std::nullopt;
}

bool visit_group(const FoundGroup& group, const log::GroupContents& contents,
                 const LogReader::Visitor& visitor) {
  if (visitor.group && !visitor.group(group)) return false;
  if (visitor.record) {
    for (const auto& entry : contents.records) {
      const auto position = log::Position::at(group.file->id, group.offset + entry.offset);
      if (!visitor.record(entry.found.record, position, entry.payload_good)) return false;
    }
  }
  if (!visitor.damage) return true;
  const auto damages = damage_of(group, contents);
  return std::all_of(damages.begin(), damages.end(), visitor.damage);
}

}  // namespace

std::string Damage::text() const {
  switch (kind) {
    case Kind::kStretch:
      return "no group can be recognised";
    case Kind::kRecord:
      return lost ? "a record is lost" : "a record that cannot be named is lost";
    case Kind::kPayload:
      return "a payload does not match its checksum";
    case Kind::kDirectory:
      return "the list of a group's records does not match its checksum";
    case Kind::kCutOff:
      return "the file ends inside a group";
    case Kind::kUnreadable:
      return "the disk cannot read it";
  }
  return "";
}

std::optional<Identity> identify(storage::File& file, uint64_t size) {
  if (const auto header = read_header(file)) {
    return Identity{{header->volume.salt(), header->file, header->epoch}, header, false};
  }
  if (const auto salt = salt_from_groups(file, size)) return Identity{*salt, std::nullopt, false};
  return std::nullopt;
}

std::vector<Damage> damage_of(const FoundGroup& group, const log::GroupContents& contents) {
  std::vector<Damage> damages;
  if (group.whole) return damages;
  if (contents.records.empty() && contents.lost.empty() && !contents.directory_good) {
    damages.push_back(damage_at(Damage::Kind::kCutOff, group, 0, group.length));
    return damages;
  }
  uint64_t at = sizeof(GroupHeader);
  const auto note_gap = [&](uint64_t end) {  // bytes in which there should be records
    bool named = false;
    for (const log::DirectoryEntry& lost : contents.lost) {
      if (lost.offset < at || lost.offset >= end) continue;
      named = true;
      damages.push_back(damage_at(Damage::Kind::kRecord, group, lost.offset, end));
      damages.back().lost = lost;
    }
    if (!named && end > at) damages.push_back(damage_at(Damage::Kind::kRecord, group, at, end));
  };
  for (const auto& entry : contents.records) {
    note_gap(entry.offset);
    at = entry.offset + entry.found.total_length;
    if (!entry.payload_good) {
      damages.push_back(damage_at(Damage::Kind::kPayload, group, entry.offset, at));
      damages.back().lost =
          log::DirectoryEntry{entry.found.record.id, entry.offset, entry.found.record.type, {}};
    }
  }
  note_gap(group.header.directory);
  if (!contents.directory_good) {
    damages.push_back(
        damage_at(Damage::Kind::kDirectory, group, group.header.directory, group.header.length));
  }
  return damages;
}

Result<LogReader> LogReader::open(storage::Storage& storage,
                                  const std::optional<log::VolumeId>& volume) {
  LogReader reader;
  VALFS_ASSIGN(const auto ids, recovery::list_log_files(storage));
  for (const log::FileId id : ids) {
    const std::string path = log::log_file_path(id);
    VALFS_ASSIGN(auto file, storage.open(path, storage::OpenMode::kRead));
    reader.add(std::move(file), path, id);
  }
  if (volume) {
    std::erase_if(reader.files_,
                  [&](const Entry& entry) { return entry.identity.salt.volume != volume->salt(); });
  }
  reader.guess_unidentified();
  const auto superblock = log::read_superblock(storage);
  reader.leave_out_freed(superblock ? superblock->durable_group : 0);
  return reader;
}

bool LogReader::add(std::shared_ptr<storage::File> file, const std::string& path,
                    log::FileId id_by_name) {
  const auto info = file->info();
  Entry entry;
  entry.path = path;
  entry.file = std::make_shared<log::LogFile>();
  entry.file->id = id_by_name;
  entry.file->size = entry.end = info ? info->size : 0;
  entry.file->file = std::move(file);
  entry.file->sealed = true;
  if (const auto identity = identify(*entry.file->file, entry.end)) {
    entry.identity = *identity;
    entry.file->id = identity->salt.file;
    entry.file->epoch = identity->salt.epoch;
    files_.push_back(std::move(entry));
    sort();
    return true;
  }
  unidentified_.push_back(std::move(entry));
  return false;
}

void LogReader::add(const log::LogFileRef& file, const log::Salt& salt, uint64_t begin,
                    uint64_t end) {
  files_.push_back({file, log::log_file_path(file->id), {salt, std::nullopt, false}, begin, end});
  sort();
}

void LogReader::sort() {
  std::stable_sort(files_.begin(), files_.end(),
                   [](const Entry& a, const Entry& b) { return a.file->id < b.file->id; });
}

size_t LogReader::guess_unidentified() {
  std::vector<log::Salt> salts;  // volume and epoch of others, the next ones too
  for (const Entry& entry : files_) {
    for (const log::Epoch epoch : {entry.identity.salt.epoch, entry.identity.salt.epoch + 1}) {
      const bool known = std::any_of(salts.begin(), salts.end(), [&](const log::Salt& salt) {
        return salt.epoch == epoch && salt.volume == entry.identity.salt.volume;
      });
      if (!known) salts.push_back({entry.identity.salt.volume, 0, epoch});
    }
  }
  size_t found = 0;
  std::erase_if(unidentified_, [&](Entry& entry) {
    if (entry.file->id == 0) return false;
    bool unreadable = false;
    const auto bytes = recovery::read_stretch(*entry.file->file, 0, entry.end, unreadable);
    for (log::Salt salt : salts) {
      salt.file = entry.file->id;
      const auto records = log::find_records(bytes, salt, 0);
      if (records.empty()) continue;
      found += records.size();
      entry.identity = {salt, std::nullopt, true};
      entry.file->epoch = salt.epoch;
      files_.push_back(std::move(entry));
      return true;
    }
    return false;
  });
  sort();
  return found;
}

void LogReader::leave_out_freed(log::GroupSequence durable) {
  std::vector<recovery::FileScan> scans;
  for (const Entry& entry : files_) {
    const log::Salt& salt = entry.identity.salt;
    const auto footer = log::read_footer(*entry.file->file, salt, entry.end);
    auto scan = footer ? recovery::scan_by_footer(entry.file, salt, *footer, entry.begin)
                       : std::optional<recovery::FileScan>();
    if (!scan) scan = recovery::scan_file(entry.file, salt, entry.begin, entry.end);
    for (const FoundGroup& group : scan->groups) {
      durable = std::max(durable, group.header.watermark);
    }
    scans.push_back(std::move(*scan));
  }
  log::Manifest youngest;
  for (size_t i = 0; i < scans.size(); i++) {
    for (const recovery::FoundManifest& found : scans[i].manifests) {
      if (!found.good || found.group > durable || found.group <= youngest.group()) continue;
      auto read = recovery::read_manifest(scans[i], files_[i].identity.salt, found);
      if (read) youngest = std::move(*read);
    }
  }
  for (Entry& entry : files_) {
    const auto begin = youngest.begin_of(entry.file->id);
    if (youngest.gone(entry.file->id)) entry.begin = entry.end;
    if (begin) entry.begin = std::clamp(*begin, entry.begin, std::max(entry.begin, entry.end));
  }
}

const LogReader::Entry* LogReader::find(log::FileId id) const {
  const auto found = std::find_if(files_.begin(), files_.end(),
                                  [id](const Entry& entry) { return entry.file->id == id; });
  return found == files_.end() ? nullptr : &*found;
}

Status LogReader::scan(log::FileId id, const Visitor& visitor) const {
  const Entry* entry = find(id);
  if (entry == nullptr) return fail(ENOENT, log::log_file_path(id) + ": there is no such log file");
  scan(*entry, visitor);
  return {};
}

void LogReader::scan(const Entry& entry, const Visitor& visitor) {
  const log::Salt& salt = entry.identity.salt;
  recovery::ScanVisitor places;
  places.group = [&](const FoundGroup& group, const log::GroupContents& contents) {
    return visit_group(group, contents, visitor);
  };
  const auto is_freed = [&](const recovery::Stretch& stretch) {
    return stretch.begin == entry.begin && !stretch.last &&
           recovery::is_all_zeros(*stretch.file->file, stretch.begin, stretch.end);
  };
  std::optional<recovery::Stretch> last;  // a footer, perhaps
  places.stretch = [&](const recovery::Stretch& stretch) {
    if (stretch.last) {
      last = stretch;
      return true;
    }
    if (!is_freed(stretch)) return visit_stretch(stretch, salt, visitor);
    if (visitor.freed) visitor.freed(stretch.begin, stretch.end);
    return true;
  };
  if (entry.begin > log::kFirstGroupOffset && visitor.freed) {
    visitor.freed(log::kFirstGroupOffset, entry.begin);
  }
  const auto scan = recovery::scan_file(entry.file, salt, entry.begin, entry.end, places);
  if (!scan.stopped && entry.end == entry.file->size) {
    const auto footer = footer_of(entry, scan);
    if (footer && visitor.footer) visitor.footer(*footer);
    // What lies before it is still a place where a group should be.
    if (last && footer) last->end = std::min(last->end, footer->begin);
    if (last && last->begin >= last->end) last.reset();
  }
  if (last && !scan.stopped && !visit_stretch(*last, salt, visitor)) return;
  if (scan.unreadable && !scan.stopped && visitor.damage) {
    Damage damage;
    damage.kind = Damage::Kind::kUnreadable;
    damage.file = entry.file->id;
    damage.end = entry.end;
    visitor.damage(damage);
  }
}

Result<StoredRecord> LogReader::read_record(log::Position position) const {
  const Entry* entry = find(position.file());
  const std::string place =
      log::log_file_path(position.file()) + ": offset " + std::to_string(position.offset());
  if (entry == nullptr) return fail(ENOENT, place + ": there is no such log file");
  const auto fetch = [&](uint64_t length) -> Result<std::vector<std::byte>> {
    std::vector<std::byte> bytes(length);
    VALFS_ASSIGN(const size_t got, entry->file->file->read(position.offset(), bytes));
    bytes.resize(got);
    return bytes;
  };
  VALFS_ASSIGN(const auto head, fetch(sizeof(log::RecordHeader)));
  VALFS_ASSIGN(const auto meta, fetch(log::plausible_meta_length(head)));
  const auto found = log::decode(meta, entry->identity.salt, position.offset());
  if (!found) return fail(EIO, place + ": there is no record, or its header is damaged");
  StoredRecord stored;
  VALFS_ASSIGN(stored.bytes, fetch(uint64_t{found->meta_length} + found->payload_length));
  const auto again = log::decode(stored.bytes, entry->identity.salt, position.offset());
  if (!again) return fail(EIO, place + ": the record reads differently the second time");
  stored.found = *again;
  if (stored.bytes.size() < stored.found.meta_length + uint64_t{stored.found.payload_length}) {
    return fail(EIO, place + ": the log file ends inside the record");
  }
  stored.found.record.payload =
      std::span(stored.bytes).subspan(stored.found.meta_length, stored.found.payload_length);
  stored.payload_good = stored.found.payload_is(stored.found.record.payload);
  return stored;
}

}  // namespace valfs::inspect
