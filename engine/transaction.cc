#include "engine/transaction.h"

#include <algorithm>

#include "engine/base/planted.h"
#include "engine/value/chunk.h"

namespace valfs {

using log::Record;
using log::RecordType;

namespace {

// So often cleaning is tried before a change is refused for lack of room.
constexpr int kRoomTries = 4;

}  // namespace

Transaction::Size Transaction::Size::of(size_t records, uint64_t name_bytes,
                                        uint64_t payload_bytes) {
  // Header, attributes, CRC list and padding of each record.
  constexpr uint64_t kFixed = sizeof(log::RecordHeader) + sizeof(index::Attributes) + 24;
  return {records * kFixed + name_bytes + payload_bytes +
              (payload_bytes / log::kPayloadChunk + records) * sizeof(uint32_t),
          records};
}

Result<Transaction> Transaction::begin(Core& core, const Size& size,
                                       log::LogWriter::Purpose purpose, log::Stream stream) {
  for (int tries = 0;;) {
    std::unique_lock lock(core.state);
    if (core.writer->reserve_room(size.bytes, size.records, purpose, stream)) {
      return Transaction(core, std::move(lock));
    }
    lock.unlock();
    auto room = core.writer->wait_for_room(size.bytes, size.records, purpose, stream);
    if (room) continue;
    const bool full = room.error().code == ENOSPC && purpose != log::LogWriter::Purpose::kCleaner;
    if (!full || tries++ == kRoomTries || !core.make_room(purpose)) {
      return tl::unexpected(room.error());
    }
  }
}

Transaction::~Transaction() {
  if (lock_.owns_lock()) core_->writer->release_room();
}

Record& Transaction::new_record(RecordType type, log::ObjectId id) {
  Record& record = records_.emplace_back();
  record.type = type;
  record.id = id;
  quiet_.push_back(false);
  return record;
}

std::span<const std::byte> Transaction::keep(std::span<const std::byte> bytes) {
  auto& copy = kept_.emplace_back(std::make_unique_for_overwrite<std::byte[]>(bytes.size()));
  std::ranges::copy(bytes, copy.get());
  return {copy.get(), bytes.size()};
}

void Transaction::put(log::ObjectId inode, const index::Attributes& attributes) {
  Record& record = new_record(RecordType::kInode, inode);
  record.body = keep(log::bytes_of(attributes));
  const auto known = core_->index.find(inode);
  const bool lossy = known != nullptr && known->lossy && attributes.size > 0;
  if (lossy && attributes.blob == 0) record.flags |= log::kLossy;
}

void Transaction::add_name(log::ObjectId parent, std::string_view name, log::ObjectId inode) {
  Record& record = new_record(RecordType::kName, new_object());
  record.a = inode;
  record.b = parent;
  record.name = name;
}

void Transaction::remove_name(const index::Name& name) {
  Record& record = new_record(RecordType::kUnname, name.cookie);
  record.a = name.inode;
  record.b = name.parent;
}

void Transaction::remove(log::ObjectId inode) {
  new_record(RecordType::kRemove, inode);
}

void Transaction::write(log::ObjectId inode, uint64_t offset, std::span<const std::byte> bytes) {
  Record& record = new_record(RecordType::kExtent, inode);
  record.a = offset;
  record.payload = bytes;
  // Parent and name let salvage give the value its place even if nothing else is left.
  const auto known = core_->index.find(inode);
  if (known == nullptr || !known->has_names()) return;
  const auto name = core_->index.first_name(*known);
  record.b = name->parent;
  if (name->name.size() <= kSalvageName) record.name = name->name;
}

void Transaction::truncate(log::ObjectId inode, uint64_t size) {
  new_record(RecordType::kTruncate, inode).a = size;
}

void Transaction::truncate_quietly(log::ObjectId inode, uint64_t size) {
  truncate(inode, size);
  quiet_.back() = true;
}

void Transaction::zero(log::ObjectId inode, uint64_t offset, uint64_t length) {
  Record& record = new_record(RecordType::kZero, inode);
  record.a = offset;
  record.b = length;
}

void Transaction::write_sums(log::ObjectId blob, uint64_t offset,
                             std::span<const std::byte> bytes) {
  Record& record = new_record(RecordType::kExtent, blob);
  record.flags = log::kSums;
  record.a = offset;
  record.payload = bytes;
}

void Transaction::blob_written(log::ObjectId inode, uint64_t offset, uint64_t length) {
  Record& record = new_record(RecordType::kBlobWrite, inode);
  record.a = offset;
  record.b = length;
}

void Transaction::blob_synced(log::ObjectId inode, uint64_t size) {
  new_record(RecordType::kBlobSync, inode).a = size;
}

void Transaction::manifest(const log::Manifest& manifest) {
  const auto bytes = keep(std::as_bytes(std::span(manifest.entries())));
  Record& record = new_record(RecordType::kManifest, 0);
  record.a = manifest.newest_freed();
  record.b = manifest.newest_file();
  record.payload = bytes;
}

void Transaction::add(const Record& record) {
  records_.push_back(record);
  quiet_.push_back(true);  // it has its time
}

void Transaction::forget_cached(const Record& record) {
  if (record.type == RecordType::kExtent && (record.flags & log::kCopy) == 0 &&
      !record.payload.empty()) {
    core_->cache.erase_chunks(record.id, record.a / kValueChunk,
                              (record.a + record.payload.size() - 1) / kValueChunk);
    return;
  }
  // Whatever drops bytes may drop any of them; what a value can have cached is bounded.
  const bool drops = record.type == RecordType::kTruncate || record.type == RecordType::kZero ||
                     record.type == RecordType::kRemove;
  if (!drops || planted(Bug::kStaleCache)) return;
  const auto inode = core_->index.find(record.id);
  if (inode == nullptr) return;
  const auto forget = [&](uint64_t first, uint64_t last) {
    if (record.type == RecordType::kRemove) {
      removed_.push_back({record.id, first, last});
    } else {
      core_->cache.erase_chunks(record.id, first, last);
    }
  };
  uint64_t end = 0;
  for (const index::Extent& extent : inode->extents().all()) {
    const uint64_t first = std::max(end, extent.offset / kValueChunk);
    end = (extent.end() - 1) / kValueChunk + 1;
    if (first < end) forget(first, end - 1);
  }
  // The chunk in which the value ends may be cached with its old length.
  const uint64_t last = inode->attributes.size / kValueChunk;
  if (last >= end) forget(last, last);
}

void Transaction::forget_removed() {
  for (const Chunks& chunks : removed_) {
    core_->cache.erase_chunks(chunks.id, chunks.first, chunks.last);
  }
  removed_.clear();
}

uint64_t Transaction::bytes() const {
  uint64_t sum = 0;
  for (const Record& record : records_) sum += record.total_length();
  return sum;
}

std::vector<index::Placed> Transaction::commit(Time now) {
  for (size_t i = 0; i < records_.size(); i++) {
    if (!quiet_[i]) records_[i].time = now;
    forget_cached(records_[i]);
  }
  auto placed = core_->writer->append(records_);
  for (size_t i = 0; i < records_.size(); i++) {
    core_->index.apply(records_[i], placed[i], index::Index::Mode::kLogOrder);
  }
  for (const log::ObjectId id : holds_) {
    if (const auto inode = core_->index.find(id)) inode->hold();
  }
  if (!records_.empty()) last_sequence_ = records_.back().sequence;
  records_.clear();
  quiet_.clear();
  holds_.clear();
  lock_.unlock();
  forget_removed();
  if (core_->committer_asleep.load(std::memory_order_relaxed)) core_->on_append();
  return placed;
}

}  // namespace valfs
