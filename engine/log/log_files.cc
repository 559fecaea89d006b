#include "engine/log/log_files.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/crc32c.h"
#include "engine/base/planted.h"

namespace valfs::log {
namespace {

constexpr uint64_t kZeroPiece = 1 << 20;

std::string parent_of(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

// The directories above a log file, durably.
Status make_parents(storage::Storage& storage, const std::string& path) {
  const std::string second = parent_of(path);
  const std::string first = parent_of(second);
  for (const std::string& directory : {first, second}) {
    VALFS_TRY(storage.make_directory(directory));
    if (planted(Bug::kLogDirectoryWithoutName)) continue;
    VALFS_TRY(storage.sync_directory(parent_of(directory)));
  }
  return {};
}

}  // namespace

LogFiles::LogFiles(storage::Storage& storage, const VolumeId& volume)
    : storage_(storage), volume_(volume), volume_salt_(volume.salt()) {}

void LogFiles::begin(Epoch epoch, FileId next_file, Limits limits) {
  const std::lock_guard lock(mutex_);
  epoch_ = epoch;
  next_file_ = next_file;
  newest_used_ = next_file - 1;
  limits_ = std::move(limits);
}

void LogFiles::set_file_size(uint64_t size, uint64_t smallest) {
  const std::lock_guard lock(mutex_);
  file_size_.store(size, std::memory_order_relaxed);
  limits_.smallest = smallest;
}

void LogFiles::adopt(LogFileRef file) {
  const std::lock_guard lock(mutex_);
  used_ += file->end - file->begin + file->footer;
  files_[file->id] = std::move(file);
}

LogFileRef LogFiles::find(FileId id) const {
  const std::lock_guard lock(mutex_);
  const auto found = files_.find(id);
  return found == files_.end() ? nullptr : found->second;
}

LogFile LogFiles::state_of(const LogFile& file) const {
  const std::lock_guard lock(mutex_);
  return file;
}

std::vector<LogFileRef> LogFiles::sealed() const {
  std::vector<LogFileRef> result;
  const std::lock_guard lock(mutex_);
  for (const auto& [id, file] : files_) {
    if (file->sealed) result.push_back(file);
  }
  return result;
}

std::vector<LogFileRef> LogFiles::all() const {
  std::vector<LogFileRef> result;
  const std::lock_guard lock(mutex_);
  for (const auto& [id, file] : files_) result.push_back(file);
  return result;
}

Result<LogFileRef> LogFiles::make_file(FileId id, uint64_t size, bool zeroed) {
  const std::string path = log_file_path(id);
  VALFS_TRY(make_parents(storage_, path));
  auto log_file = std::make_shared<LogFile>();
  VALFS_ASSIGN(log_file->file, storage_.open(path, storage::OpenMode::kCreate));
  log_file->id = id;
  log_file->epoch = epoch_;
  log_file->size = size;
  log_file->zeroed = zeroed;

  LogFileHeader header;
  header.epoch = epoch_;
  header.volume = volume_;
  header.file = id;
  header.size = size;
  header.crc = crc32c(bytes_of(header).first(offsetof(LogFileHeader, crc)));
  if (auto filled = fill_file(*log_file, bytes_of(header)); !filled) {
    // Half a spare is of no use, and takes the space that somebody may need to delete something.
    if (auto removed = storage_.remove(path); !removed) return tl::unexpected(removed.error());
    return tl::unexpected(filled.error());
  }
  return log_file;
}

// Durably, with its name.
Status LogFiles::fill_file(LogFile& file, std::span<const std::byte> header) const {
  const uint64_t piece = std::min(file.size, kZeroPiece);
  std::vector<std::byte> bytes(file.zeroed ? piece : kBlock);
  std::memcpy(bytes.data(), header.data(), header.size());
  VALFS_TRY(file.file->write(0, bytes));
  if (!file.zeroed) {
    const auto reserved = file.file->reserve(file.size);
    if (!reserved && reserved.error().code != EOPNOTSUPP) return reserved;
    file.zeroed = !reserved;
  }
  if (file.zeroed) {
    const uint64_t written = bytes.size();
    bytes.assign(piece, std::byte{0});
    for (uint64_t at = written; at < file.size; at += piece) {
      VALFS_TRY(file.file->write(at, std::span(bytes).first(std::min(piece, file.size - at))));
    }
  }
  VALFS_TRY(file.file->sync());
  if (planted(Bug::kLogFileWithoutName)) return {};
  return storage_.sync_directory(parent_of(log_file_path(file.id)));
}

Status LogFiles::prepare(size_t wanted, bool small_will_do) {
  const std::lock_guard slow(prepare_mutex_);
  while (spares() < wanted) VALFS_TRY(prepare_one(small_will_do));
  return {};
}

Status LogFiles::prepare_one(bool small_will_do) {
  FileId id;
  uint64_t size;
  uint64_t smallest;
  bool zeroed;
  std::function<uint64_t()> room;
  {
    const std::lock_guard lock(mutex_);
    id = next_file_++;
    size = file_size();
    smallest = limits_.smallest;
    zeroed = !bulk_;
    room = limits_.room;
  }
  const uint64_t available = room ? room() : size;
  if (available < size && small_will_do) {
    size = std::max(smallest, available / kBlock * kBlock);
  }
  if (available < size) return fail(ENOSPC, "no room for another log file");
  VALFS_ASSIGN(auto file, make_file(id, size, zeroed));
  const std::lock_guard lock(mutex_);
  spares_.push_back(std::move(file));
  return {};
}

// Not where the two for a moment would take what somebody else needs.
bool LogFiles::should_replace() const {
  std::function<uint64_t()> room;
  uint64_t size = 0;
  {
    const std::lock_guard lock(mutex_);
    if (bulk_ || spares_.empty() || spares_.front()->zeroed) return false;
    room = limits_.room;
    size = file_size();
  }
  return !room || room() >= 2 * size;
}

// First the new one, then the old one goes: there are never fewer than before. Spares are used in
// the order of their ids, so that zeroed ones cannot just go first.
Status LogFiles::replace_reserved_spares() {
  const std::lock_guard slow(prepare_mutex_);
  while (should_replace()) {
    VALFS_TRY(prepare_one(false));
    LogFileRef old;
    {
      const std::lock_guard lock(mutex_);
      if (spares_.empty() || spares_.front()->zeroed) continue;  // it was used meanwhile
      old = std::move(spares_.front());
      spares_.pop_front();
    }
    VALFS_TRY(remove_unused(*old));
  }
  return {};
}

Status LogFiles::remove_unused(const LogFile& file) {
  const std::string path = log_file_path(file.id);
  VALFS_TRY(storage_.remove(path));
  return storage_.sync_directory(parent_of(path));
}

bool LogFiles::is_bulk() const {
  const std::lock_guard lock(mutex_);
  return bulk_;
}

bool LogFiles::zeroed_spare() const {
  const std::lock_guard lock(mutex_);
  return !spares_.empty() && spares_.front()->zeroed;
}

void LogFiles::note_group(uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  group_average_ = (7 * group_average_ + bytes) / 8;
  if (limits_.bulk_group == 0) return;
  // Not to and fro where groups are just so long.
  bulk_ = group_average_ >= (bulk_ ? limits_.bulk_group / 2 : limits_.bulk_group);
}

size_t LogFiles::spares() const {
  const std::lock_guard lock(mutex_);
  return spares_.size();
}

LogFileRef LogFiles::take_spare(Stream stream) {
  const std::lock_guard lock(mutex_);
  VALFS_CHECK(!spares_.empty());
  LogFileRef file = std::move(spares_.front());
  spares_.pop_front();
  file->stream = stream;
  file->map = std::make_shared<Footer>();
  file->mapped = true;
  files_[file->id] = file;
  return file;
}

void LogFiles::grew(LogFile& file, uint64_t end, GroupSequence group, ObjectId highest_object) {
  const std::lock_guard lock(mutex_);
  if (end > file.end) {
    used_ += end - file.end;
    file.end = end;
  }
  newest_used_ = std::max(newest_used_, file.id);
  if (file.first_group == 0) file.first_group = group;
  file.last_group = std::max(file.last_group, group);
  file.highest_object = std::max(file.highest_object, highest_object);
}

void LogFiles::mark_sealed(LogFile& file) {
  const std::lock_guard lock(mutex_);
  file.sealed = true;
}

void LogFiles::cut_back(LogFile& file, uint64_t end, GroupSequence last_group) {
  const std::lock_guard lock(mutex_);
  VALFS_CHECK(end >= file.begin && end <= file.end);
  used_ -= file.end - end;
  file.end = end;
  file.last_group = last_group;
  if (end == file.begin) file.first_group = file.last_group = 0;
  if (!file.map) return;
  auto& [groups, gaps, unused] = *file.map;
  while (!groups.empty() && groups.back().offset * kBlock >= end) {
    gaps.resize(gaps.size() - groups.back().gaps);
    groups.pop_back();
  }
}

void LogFiles::freed(LogFile& file, uint64_t begin, GroupSequence first_group) {
  const std::lock_guard lock(mutex_);
  VALFS_CHECK(begin >= file.begin && begin <= file.end);
  used_ -= begin - file.begin;
  file.begin = begin;
  file.first_group = first_group;
}

Manifest LogFiles::manifest(GroupSequence newest_freed, FileId gone) const {
  std::vector<ManifestEntry> entries;
  const std::lock_guard lock(mutex_);
  for (const auto& [id, file] : files_) {
    // What holds nothing yet may be gone after a crash, and nobody misses it.
    if (id == gone || file->first_group == 0) continue;
    const auto blocks = [](uint64_t bytes) { return static_cast<uint32_t>(bytes / kBlock); };
    entries.push_back({id, blocks(file->begin), file->sealed ? blocks(file->end) : 0,
                       file->begin == file->end ? 1U : 0U});
  }
  return {newest_freed, newest_used_, std::move(entries)};
}

void LogFiles::amend(std::span<ManifestEntry> entries) const {
  const std::lock_guard lock(mutex_);
  for (ManifestEntry& entry : entries) {
    const auto found = files_.find(entry.file);
    if (found == files_.end()) continue;
    const LogFile& file = *found->second;
    entry.end = std::min(entry.end, static_cast<uint32_t>(file.end / kBlock));
    if (file.first_group == 0) entry.empty = 1;
  }
}

void LogFiles::map_group(LogFile& file, const FooterGroup& group, std::span<const Gap> gaps) {
  const std::lock_guard lock(mutex_);
  if (!file.map) return;
  FooterGroup& entry = file.map->groups.emplace_back(group);
  entry.gaps = static_cast<uint32_t>(gaps.size());
  file.map->gaps.insert(file.map->gaps.end(), gaps.begin(), gaps.end());
}

// Behind the groups, where nothing acknowledged lies. Without one the file is merely read in full
// should all checkpoints be lost.
Status LogFiles::write_footer(LogFile& file) {
  Footer footer;
  {
    const std::lock_guard lock(mutex_);
    const auto map = std::move(file.map);
    const bool mapped = std::exchange(file.mapped, false);
    if (!mapped || !map || map->groups.empty()) return {};
    footer = std::move(*map);
    footer.end = file.end;
  }
  const auto bytes = encode_footer(footer, salt(file));
  VALFS_TRY(file.file->write(footer.end, bytes));
  VALFS_TRY(file.file->sync());
  const std::lock_guard lock(mutex_);
  file.footer = bytes.size();
  used_ += file.footer;
  file.size = footer.end + bytes.size();
  return {};
}

Status LogFiles::trim_sealed() {
  for (const LogFileRef& file : sealed()) {
    uint64_t end;
    {
      const std::lock_guard lock(mutex_);
      if (file->end + file->footer >= file->size && !file->mapped) continue;
      end = file->end;
    }
    VALFS_TRY(file->file->resize(end));
    if (!planted(Bug::kTrimNotDurable)) {
      VALFS_TRY(file->file->sync());  // whoever asked may forget the cut now
    }
    {
      const std::lock_guard lock(mutex_);
      file->size = end;
    }
    if (auto written = write_footer(*file); !written && written.error().code != ENOSPC) {
      return written;
    }
  }
  return {};
}

Status LogFiles::remove(FileId id) {
  const std::string path = log_file_path(id);
  VALFS_TRY(storage_.remove(path));
  {
    const std::lock_guard lock(mutex_);
    const auto file = files_.find(id);
    if (file != files_.end()) {
      used_ -= file->second->end - file->second->begin + file->second->footer;
      files_.erase(file);
    }
  }
  return storage_.sync_directory(parent_of(path));
}

Status LogFiles::remove_spares() {
  const std::lock_guard slow(prepare_mutex_);
  std::deque<LogFileRef> unused;
  {
    const std::lock_guard lock(mutex_);
    unused.swap(spares_);
  }
  for (const LogFileRef& file : unused) VALFS_TRY(remove_unused(*file));
  return {};
}

LogFiles::Usage LogFiles::usage() const {
  Usage usage;
  const std::lock_guard lock(mutex_);
  usage.files = files_.size();
  for (const auto& [id, file] : files_) {
    usage.used += file->end - file->begin + file->footer;
    usage.bytes += file->size - (file->begin - kFirstGroupOffset);
  }
  for (const LogFileRef& file : spares_) usage.spare += file->size;
  usage.bytes += usage.spare;
  return usage;
}

FileId LogFiles::next_file() const {
  const std::lock_guard lock(mutex_);
  return next_file_;
}

}  // namespace valfs::log
