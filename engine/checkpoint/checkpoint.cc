#include "engine/checkpoint/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "engine/base/planted.h"
#include "engine/checkpoint/entries.h"

namespace valfs::checkpoint {
namespace {

constexpr size_t kBucketsAtOnce = 512;  // walked under one lock
constexpr uint64_t kLeastEntry = 16;    // bytes of a page that an inode with a name takes

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
  EntryWriter entries(pages);
  return walk(
      with_index, [](const index::Index& index) { return index.inode_buckets(); },
      [&](const index::Index& index, size_t bucket) {
        Status status;
        index.visit_inode_bucket(bucket, [&](const index::Inode& inode) {
          if (status) status = entries.put(index, inode);
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

// In batches, so that the index can have its memory fetched for many names at once.
bool read_inodes(PageReader page, bool exact, Entries& batch, index::Index& index) {
  constexpr size_t kBatch = 64;
  EntryReader entries(page);
  while (!entries.at_end()) {
    batch.clear();
    while (!entries.at_end() && batch.inodes.size() < kBatch) {
      if (!entries.take(batch)) return false;
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
  Entries batch;
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
