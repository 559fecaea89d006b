#include "engine/inspect/scrub.h"

#include <algorithm>

#include "engine/log/payload_reader.h"

namespace valfs::inspect {
namespace {

using std::chrono::steady_clock;

constexpr size_t kBucketsAtOnce = 512;  // looked at under one lock

// Visits an index that others change, bucket by bucket.
template <class Count, class Visit>
void walk(const checkpoint::WithIndex& with_index, Count count, Visit visit) {
  size_t bucket = 0;
  bool more = true;
  while (more) {
    with_index([&](const index::Index& index) {
      const size_t end = std::min(bucket + kBucketsAtOnce, count(index));
      for (; bucket < end; bucket++) visit(index, bucket);
      more = bucket < count(index);
    });
  }
}

template <class Visit>
void walk_inodes(const checkpoint::WithIndex& with_index, Visit visit) {
  walk(
      with_index, [](const index::Index& index) { return index.inode_buckets(); },
      [&](const index::Index& index, size_t bucket) { index.visit_inode_bucket(bucket, visit); });
}

}  // namespace

// Something current that lies in a log file.
struct Scrubber::Live {
  enum class Kind { kExtent, kAttributes, kName } kind{};
  log::ObjectId inode = 0;
  log::Position record;
  index::Extent extent;      // of an extent
  log::ObjectId parent = 0;  // of a name
  std::string name;
};

bool Scrubber::stopping() const {
  const std::lock_guard lock(mutex_);
  return stop_;
}

void Scrubber::stop(bool for_good) {
  const std::lock_guard lock(mutex_);
  closed_ |= for_good;
  stop_ = true;
  changed_.notify_all();
}

ScrubProgress Scrubber::progress() const {
  const std::lock_guard lock(mutex_);
  return progress_;
}

// Bytes were read: waits until the next may be. False: stop.
bool Scrubber::paced(uint64_t bytes) {
  std::unique_lock lock(mutex_);
  progress_.bytes_done += bytes;
  progress_.bytes_total = std::max(progress_.bytes_total, progress_.bytes_done);
  if (rate_ > 0) {
    const std::chrono::duration<double> cost(static_cast<double>(bytes) /
                                             static_cast<double>(rate_));
    next_ = std::max(next_, steady_clock::now()) +
            std::chrono::duration_cast<steady_clock::duration>(cost);
    changed_.wait_until(lock, next_, [this] { return stop_; });
  }
  return !stop_;
}

void Scrubber::add(const ScrubTarget& target, Finding finding) {
  if (finding.severity != Finding::Severity::kError) return;
  if (finding.inode != 0 && finding.path.empty()) {
    target.with_index(
        [&](const index::Index& index) { finding.path = index.path_of(finding.inode); });
  }
  const std::lock_guard lock(mutex_);
  progress_.damaged++;
  if (progress_.findings.size() < kMostFindings) progress_.findings.push_back(std::move(finding));
}

Result<ScrubProgress> Scrubber::run(const ScrubTarget& target, uint64_t rate) {
  {
    const std::lock_guard lock(mutex_);
    if (progress_.running) return fail(EBUSY, "another scrub is running");
    if (closed_) return fail(ECANCELED, "the scrub was stopped");
    progress_ = {};
    progress_.running = true;
    stop_ = false;
    rate_ = rate;
    next_ = steady_clock::now();
    for (const ScrubTarget::Log& log : target.logs) progress_.bytes_total += log.end - log.begin;
  }
  scrub_all(target);
  const std::lock_guard lock(mutex_);
  progress_.running = false;
  progress_.stopped = stop_;
  if (stop_) return fail(ECANCELED, "the scrub was stopped");
  progress_.bytes_total = progress_.bytes_done;
  return progress_;
}

void Scrubber::scrub_all(const ScrubTarget& target) {
  for (const ScrubTarget::Log& log : target.logs) {
    if (stopping()) return;
    scrub_log(target, log);
  }
  scrub_checkpoint(target);
  scrub_inodes(target);
}

// Where what is left of a log file begins by now: the cleaner goes on meanwhile.
uint64_t Scrubber::left_from(const ScrubTarget& target, const ScrubTarget::Log& log) {
  if (target.files.find(log.file->id) != log.file) return log.end;
  return target.files.state_of(*log.file).begin;
}

void Scrubber::scrub_log(const ScrubTarget& target, const ScrubTarget::Log& log) {
  const uint64_t begin = std::max(log.begin, left_from(target, log));
  if (begin >= log.end) return;
  LogReader reader;
  reader.add(log.file, target.files.salt(*log.file), begin, log.end);
  std::vector<uint64_t> places;  // where damage ends
  LogReader::Visitor visitor;
  visitor.group = [&](const recovery::FoundGroup& group) { return paced(group.length); };
  visitor.damage = [&](const Damage& damage) {
    places.push_back(damage.end);
    return paced(damage.kind == Damage::Kind::kStretch ? damage.end - damage.begin : 0);
  };
  visitor.record = [&](const log::Record& record, log::Position position, bool payload_good) {
    // Checksums do not tell that frames can be expanded.
    if (payload_good && log::is_compressed(record) && !log::raw_bytes(record)) {
      places.push_back(position.offset() + record.total_length());
    }
    return true;
  };
  (void)reader.scan(log.file->id, visitor);  // the file is there: it was just added
  const uint64_t left = left_from(target, log);
  std::erase_if(places, [left](uint64_t end) { return end <= left; });
  const uint64_t damages = places.size();
  if (damages == 0 || stopping()) return;
  uint64_t before;
  {
    const std::lock_guard lock(mutex_);
    before = progress_.damaged;
  }
  for (const Live& live : live_in(target, log.file->id)) check_live(target, log, live);
  const std::lock_guard lock(mutex_);
  if (progress_.damaged == before) progress_.dead_damage += damages;
}

std::vector<Scrubber::Live> Scrubber::live_in(const ScrubTarget& target, log::FileId file) const {
  std::vector<Live> found;
  walk_inodes(target.with_index, [&](const index::Inode& inode) {
    if (inode.base && inode.base.file() == file) {
      found.push_back({Live::Kind::kAttributes, inode.id, inode.base, {}, 0, {}});
    }
    for (const index::Extent& extent : inode.extents().all()) {
      if (extent.record.file() != file) continue;
      found.push_back({Live::Kind::kExtent, inode.id, extent.record, extent, 0, {}});
    }
  });
  walk(
      target.with_index, [](const index::Index& index) { return index.name_buckets(); },
      [&](const index::Index& index, size_t bucket) {
        index.visit_name_bucket(bucket, [&](const index::Name& name) {
          if (name.record.file() != file) return;
          found.push_back({Live::Kind::kName,
                           name.inode,
                           name.record,
                           {},
                           name.parent,
                           std::string(name.name)});
        });
      });
  std::sort(found.begin(), found.end(),
            [](const Live& a, const Live& b) { return a.record.packed < b.record.packed; });
  return found;
}

bool Scrubber::still_there(const ScrubTarget& target, const Live& live) const {
  bool there = false;
  target.with_index([&](const index::Index& index) {
    const auto inode = index.find(live.inode);
    if (inode == nullptr) return;
    if (live.kind == Live::Kind::kAttributes) there = inode->base == live.record;
    if (live.kind == Live::Kind::kName) {
      const auto name = index.find(live.parent, live.name);
      there = name != nullptr && name->record == live.record;
    }
    if (live.kind != Live::Kind::kExtent) return;
    for (const index::Extent& extent : inode->extents().all())
      there |= extent.record == live.record;
  });
  return there;
}

void Scrubber::check_live(const ScrubTarget& target, const ScrubTarget::Log& log,
                          const Live& live) {
  if (live.record.offset() >= log.end) return;  // written since
  Status read;
  if (live.kind == Live::Kind::kExtent) {
    std::vector<std::byte> bytes(live.extent.length);
    read = log::read_payload(*log.file, target.files.salt(*log.file), live.extent, 0, bytes);
  } else {
    LogReader reader;
    reader.add(log.file, target.files.salt(*log.file), log.begin, log.end);
    const auto record = reader.read_record(live.record);
    if (!record) read = tl::unexpected(record.error());
  }
  if (read || !still_there(target, live)) return;
  Finding finding;
  finding.inode = live.inode;
  locate(finding, live.record);
  switch (live.kind) {
    case Live::Kind::kExtent:
      finding.kind = "value";
      finding.what = "bytes " + std::to_string(live.extent.offset) + " to " +
                     std::to_string(live.extent.end()) + ": " + read.error().what;
      finding.next = "write the value anew, or delete it";
      break;
    case Live::Kind::kAttributes:
      finding.kind = "metadata";
      finding.what = "the record of its attributes is damaged; they are known in memory";
      finding.next = "change its mode there and back: that writes a new record";
      break;
    case Live::Kind::kName:
      finding.kind = "metadata";
      finding.what = "the record of its name is damaged; it is known in memory";
      finding.next = "rename it there and back: that writes a new record";
      break;
  }
  add(target, std::move(finding));
}

void Scrubber::scrub_checkpoint(const ScrubTarget& target) {
  while (!stopping()) {
    const uint64_t generation = target.checkpoint();
    if (generation == 0) return;
    const auto checked = checkpoint::check_checkpoint(
        target.storage, generation, [this](uint64_t bytes) { return paced(bytes); });
    if (checked) return;
    if (target.checkpoint() != generation) continue;  // a newer one has taken its place
    Finding finding;
    finding.kind = "checkpoint";
    finding.file = checkpoint::checkpoint_path(generation);
    finding.what = checked.error().what;
    finding.next = "write a new one: valfs checkpoint MOUNTPOINT, or valfs fsck --repair DATA";
    return add(target, std::move(finding));
  }
}

// Values of which recovery knows that a record is lost; blobs.
void Scrubber::scrub_inodes(const ScrubTarget& target) {
  std::vector<log::ObjectId> damaged;
  std::vector<log::ObjectId> blobs;
  uint64_t bytes = 0;
  walk_inodes(target.with_index, [&](const index::Inode& inode) {
    if (inode.damaged) damaged.push_back(inode.id);
    if (inode.attributes.blob == 0 || inode.sums) return;
    blobs.push_back(inode.id);
    bytes += inode.attributes.size;
  });
  {
    const std::lock_guard lock(mutex_);
    progress_.bytes_total = std::max(progress_.bytes_total, progress_.bytes_done + bytes);
  }
  for (const log::ObjectId id : damaged) {
    Finding finding;
    finding.kind = "value";
    finding.inode = id;
    finding.what = "a record of this value is lost: all of it answers EIO";
    finding.next = "write the value anew, or delete it";
    add(target, std::move(finding));
  }
  for (const log::ObjectId id : blobs) {
    if (stopping()) return;
    target.check_blob(
        id, [this](uint64_t read) { return paced(read); },
        [&](Finding finding) { add(target, std::move(finding)); });
  }
}

}  // namespace valfs::inspect
