#include "engine/checkpoint/checkpoint.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>

#include "engine/base/planted.h"
#include "engine/checkpoint/pages.h"

namespace valfs::checkpoint {
namespace {

constexpr size_t kBucketsAtOnce = 512;  // walked under one lock
constexpr uint64_t kLeastEntry = 128;   // bytes of a page that an inode takes

struct Header {
  log::VolumeId volume;
  log::GroupSequence covers = 0;
  log::RecordSequence next_record = 0;
  log::ObjectId next_object = 0;
  log::GroupSequence newest_freed = 0;
  // About how many follow, so that room for them is made at once.
  uint64_t inodes = 0;
  uint64_t names = 0;
};

// In the end page: nothing has changed meanwhile, so that no name is in it twice.
constexpr uint64_t kExact = 1;

enum InodeFlag : uint16_t { kSumsFlag = 1, kDamagedFlag = 2, kLossyFlag = 4 };

// Followed by its extents and its names.
struct InodeEntry {
  log::ObjectId id = 0;
  log::RecordSequence sequence = 0;
  uint64_t base = 0;
  log::RecordSequence base_sequence = 0;
  index::Attributes attributes;
  uint32_t extent_count = 0;
  uint32_t name_count = 0;
  uint16_t flags = 0;
  std::array<uint8_t, 6> reserved{};
};
static_assert(sizeof(InodeEntry) == 136);

struct NameEntry {
  log::ObjectId cookie = 0;
  log::ObjectId parent = 0;
  uint64_t record = 0;
  uint64_t length = 0;
};

void put_name(PageWriter& pages, const index::Name& name) {
  pages.put(NameEntry{name.cookie, name.parent, name.record.packed, name.name.size()});
  pages.put(name.name);
}

Status put_inode(PageWriter& pages, const index::Index& index, const index::Inode& inode) {
  VALFS_TRY(pages.begin_entry(PageKind::kInodes));
  InodeEntry entry;
  entry.id = inode.id;
  entry.sequence = inode.sequence;
  entry.base = inode.base.packed;
  entry.base_sequence = inode.base_sequence;
  entry.attributes = inode.attributes;
  entry.extent_count = static_cast<uint32_t>(inode.extents().all().size());
  entry.name_count = static_cast<uint32_t>(index.count_names(inode));
  if (inode.sums) entry.flags |= kSumsFlag;
  if (inode.damaged && !planted(Bug::kCheckpointHidesDamage)) entry.flags |= kDamagedFlag;
  if (inode.lossy) entry.flags |= kLossyFlag;
  pages.put(entry);
  for (const index::Extent& extent : inode.extents().all()) pages.put(extent);
  for (auto name = index.first_name(inode); name; name = index.next_name(*name)) {
    put_name(pages, *name);
  }
  return {};
}

// Walks buckets in slices; `count` may grow meanwhile.
template <class Count, class Visit>
Status walk(const WithIndex& with_index, Count count, Visit visit) {
  size_t bucket = 0;
  bool more = true;
  while (more) {
    Status status;
    with_index([&](const index::Index& index) {
      const size_t end = std::min(bucket + kBucketsAtOnce, count(index));
      for (; bucket < end && status; bucket++) status = visit(index, bucket);
      more = status && bucket < count(index);
    });
    VALFS_TRY(status);
  }
  return {};
}

Status write_index(PageWriter& pages, const WithIndex& with_index) {
  return walk(
      with_index, [](const index::Index& index) { return index.inode_buckets(); },
      [&](const index::Index& index, size_t bucket) {
        Status status;
        index.visit_inode_bucket(bucket, [&](const index::Inode& inode) {
          if (status) status = put_inode(pages, index, inode);
        });
        return status;
      });
}

Status write_pages(PageWriter& pages, const log::VolumeId& volume, const Moment& moment,
                   const WithIndex& with_index) {
  uint64_t changes = 0;
  Header header{volume, moment.covers, moment.next_record, moment.next_object, moment.newest_freed};
  with_index([&](const index::Index& index) {
    header.inodes = index.inode_count();
    header.names = index.name_count();
    changes = index.changes();
  });
  VALFS_TRY(pages.begin_entry(PageKind::kHeader));
  pages.put(header);
  VALFS_TRY(write_index(pages, with_index));
  for (const FileEntry& file : moment.files) {
    VALFS_TRY(pages.begin_entry(PageKind::kFiles));
    pages.put(file);
  }
  uint64_t end = kExact;
  with_index([&](const index::Index& index) {
    if (index.changes() != changes) end = 0;
  });
  VALFS_TRY(pages.begin_entry(PageKind::kEnd));
  pages.put(end);
  return pages.finish();
}

// What the index counts on. A page whose CRC is right was written by this program, but not
// necessarily by one without bugs, on a machine with sound memory.
bool is_sane(const InodeEntry& entry, std::span<const index::Extent> extents) {
  uint64_t end = 0;
  for (const index::Extent& extent : extents) {
    const bool in_order = extent.offset >= end && extent.end() > extent.offset;
    const bool inside =
        extent.compressed != 0
            ? extent.meta > 0 && extent.in_payload() + extent.length <= log::kMaxPayload
            : extent.lead >= extent.meta;
    if (!in_order || !extent.record || !inside) return false;
    end = extent.end();
  }
  return entry.id != 0 && end <= entry.attributes.size && entry.attributes.size <= INT64_MAX;
}

// What a page of inodes says, before it goes to the index.
struct Page {
  std::vector<index::Inode> inodes;
  std::vector<index::Extent> extents;  // of all of them, in order
  std::vector<size_t> extent_ends;     // of each inode
  std::vector<index::Name> names;

  void clear() {
    inodes.clear();
    extents.clear();
    extent_ends.clear();
    names.clear();
  }
};

bool take_names(PageReader& page, uint32_t count, log::ObjectId inode, Page& into) {
  for (uint32_t i = 0; i < count && !page.failed(); i++) {
    const auto entry = page.take<NameEntry>();
    index::Name name;
    name.cookie = entry.cookie;
    name.parent = entry.parent;
    name.inode = inode;
    name.record = {entry.record};
    name.name = page.take_text(entry.length);
    const bool sane = name.cookie != 0 && name.parent != 0 && entry.length <= log::kMaxName;
    if (page.failed() || !sane) return false;
    into.names.push_back(name);
  }
  return !page.failed();
}

bool take_inode(PageReader& page, Page& into) {
  const auto entry = page.take<InodeEntry>();
  const size_t first = into.extents.size();
  for (uint32_t i = 0; i < entry.extent_count && !page.failed(); i++) {
    into.extents.push_back(page.take<index::Extent>());
  }
  if (page.failed() || !is_sane(entry, std::span(into.extents).subspan(first))) return false;
  index::Inode& inode = into.inodes.emplace_back();
  inode.id = entry.id;
  inode.sequence = entry.sequence;
  inode.base = {entry.base};
  inode.base_sequence = entry.base_sequence;
  inode.attributes = entry.attributes;
  inode.sums = (entry.flags & kSumsFlag) != 0;
  inode.damaged = (entry.flags & kDamagedFlag) != 0;
  inode.lossy = (entry.flags & kLossyFlag) != 0;
  into.extent_ends.push_back(into.extents.size());
  return take_names(page, entry.name_count, entry.id, into);
}

// In batches, so that the index can have its memory fetched for many names at once.
bool read_inodes(PageReader page, bool exact, Page& batch, index::Index& index) {
  constexpr size_t kBatch = 64;
  while (!page.at_end()) {
    batch.clear();
    while (!page.at_end() && batch.inodes.size() < kBatch) {
      if (!take_inode(page, batch)) return false;
    }
    size_t begin = 0;
    for (size_t i = 0; i < batch.inodes.size(); i++) {
      const size_t end = batch.extent_ends[i];
      index.restore_inode(batch.inodes[i], std::span(batch.extents).subspan(begin, end - begin));
      begin = end;
    }
    index.restore_names(batch.names, exact);
  }
  return true;
}

template <class T>
bool read_all(PageReader page, std::vector<T>& into) {
  while (!page.at_end()) into.push_back(page.take<T>());
  return !page.failed();
}

bool is_sane_file(const FileEntry& entry) {
  return entry.begin >= log::kFirstGroupOffset && entry.begin <= entry.end &&
         entry.end % log::kBlock == 0;
}

}  // namespace

std::string checkpoint_path(uint64_t generation) {
  char path[32];
  std::snprintf(path, sizeof path, "checkpoint/%016lx", static_cast<unsigned long>(generation));
  return path;
}

Result<uint64_t> write_checkpoint(storage::Storage& storage, const log::VolumeId& volume,
                                  uint64_t generation, const Moment& moment,
                                  const WithIndex& with_index) {
  const std::string path = checkpoint_path(generation);
  if (auto old = storage.remove(path); !old && old.error().code != ENOENT) {
    return tl::unexpected(old.error());
  }
  VALFS_ASSIGN(auto file, storage.open(path, storage::OpenMode::kCreate));
  PageWriter pages(*file, generation);
  const auto write = [&]() -> Status {
    VALFS_TRY(write_pages(pages, volume, moment, with_index));
    if (!planted(Bug::kCheckpointNotSynced)) VALFS_TRY(file->sync());
    return storage.sync_directory("checkpoint");
  };
  if (auto written = write(); !written) {
    (void)storage.remove(path);  // the first error is the one to report
    return tl::unexpected(written.error());
  }
  return pages.bytes_written();
}

Result<Moment> read_checkpoint(storage::Storage& storage, const log::VolumeId& volume,
                               uint64_t generation, index::Index& index) {
  VALFS_ASSIGN(auto file, storage.open(checkpoint_path(generation), storage::OpenMode::kRead));
  VALFS_ASSIGN(const auto info, file->info());
  const uint64_t most = info.size / kLeastEntry;  // whatever the header says
  const bool exact = read_end_page(*file, info.size, generation).value_or(0) == kExact;
  PageSource pages(*file, generation);
  Moment moment;
  Page batch;
  std::span<const std::byte> bytes;
  for (bool first = true;; first = false) {
    VALFS_ASSIGN(const PageKind kind, pages.next(bytes));
    if (first != (kind == PageKind::kHeader)) return fail(EINVAL, "checkpoint: pages in disorder");
    PageReader page(bytes);
    bool sane = true;
    switch (kind) {
      case PageKind::kHeader: {
        const auto header = page.take<Header>();
        if (page.failed() || header.volume != volume) {
          return fail(EINVAL, "checkpoint: of another volume");
        }
        moment.covers = header.covers;
        moment.next_record = header.next_record;
        moment.next_object = header.next_object;
        moment.newest_freed = header.newest_freed;
        index.reserve(std::min(header.inodes, most), std::min(header.names, most));
        break;
      }
      case PageKind::kInodes:
        sane = read_inodes(page, exact, batch, index);
        break;
      case PageKind::kFiles:
        sane = read_all(page, moment.files) &&
               std::all_of(moment.files.begin(), moment.files.end(), is_sane_file);
        break;
      case PageKind::kEnd:
        return moment;
      default:
        sane = false;
    }
    if (!sane) return fail(EINVAL, "checkpoint: a page makes no sense");
  }
}

Result<uint64_t> check_checkpoint(storage::Storage& storage, uint64_t generation,
                                  const std::function<bool(uint64_t bytes)>& paced) {
  VALFS_ASSIGN(auto file, storage.open(checkpoint_path(generation), storage::OpenMode::kRead));
  PageSource pages(*file, generation);
  uint64_t sum = 0;
  for (;;) {
    std::span<const std::byte> bytes;
    VALFS_ASSIGN(const PageKind kind, pages.next(bytes));
    sum += sizeof(PageHeader) + bytes.size();
    if (!paced(sizeof(PageHeader) + bytes.size()) || kind == PageKind::kEnd) return sum;
  }
}

Status remove_old_checkpoints(storage::Storage& storage, uint64_t newest) {
  VALFS_ASSIGN(const auto names, storage.list("checkpoint"));
  for (const std::string& name : names) {
    uint64_t generation = 0;
    const auto result = std::from_chars(name.data(), name.data() + name.size(), generation, 16);
    const bool keep = result.ec == std::errc() && generation <= newest && generation + 1 >= newest;
    if (!keep) VALFS_TRY(storage.remove("checkpoint/" + name));
  }
  return storage.sync_directory("checkpoint");
}

uint64_t checkpoint_bytes(storage::Storage& storage) {
  uint64_t sum = 0;
  for (const std::string& name : storage.list("checkpoint").value_or(std::vector<std::string>{})) {
    const auto file = storage.open("checkpoint/" + name, storage::OpenMode::kRead);
    if (!file) continue;
    if (const auto info = (*file)->info()) sum += info->allocated;
  }
  return sum;
}

}  // namespace valfs::checkpoint
