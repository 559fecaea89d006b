#include "engine/inspect/dry_storage.h"

#include <algorithm>
#include <cstring>

namespace valfs::inspect {
namespace {

using storage::kBlockSize;

tl::unexpected<Error> refused(const std::string& path) {
  return fail(EROFS, path + ": the data directory is only looked at");
}

}  // namespace

class DryStorage::DryFile final : public storage::File {
 public:
  DryFile(std::string path, std::shared_ptr<storage::File> below, std::shared_ptr<Written> written,
          const std::function<void(uint64_t)>& on_read)
      : path_(std::move(path)),
        below_(std::move(below)),
        written_(std::move(written)),
        on_read_(on_read) {}

  Result<size_t> read(uint64_t offset, std::span<std::byte> into) override {
    VALFS_ASSIGN(size_t got, below_->read(offset, into));
    if (on_read_) on_read_(got);
    const std::lock_guard lock(written_->mutex);
    if (offset < written_->end) {
      const size_t there = std::min<uint64_t>(into.size(), written_->end - offset);
      if (there > got) {
        std::fill_n(into.begin() + static_cast<ptrdiff_t>(got), there - got, std::byte{0});
        got = there;
      }
    }
    const uint64_t end = offset + got;
    for (auto block = written_->blocks.lower_bound(offset / kBlockSize);
         block != written_->blocks.end() && block->first * kBlockSize < end; ++block) {
      const uint64_t begin = block->first * kBlockSize;
      const uint64_t from = std::max(begin, offset);
      const uint64_t to = std::min(begin + kBlockSize, end);
      std::memcpy(into.data() + (from - offset), block->second.data() + (from - begin), to - from);
    }
    return got;
  }

  Status write(uint64_t offset, std::span<const std::byte> from) override {
    for (size_t done = 0; done < from.size();) {
      const uint64_t at = offset + done;
      const uint64_t begin = at / kBlockSize * kBlockSize;
      const size_t length = std::min<uint64_t>(from.size() - done, begin + kBlockSize - at);
      std::vector<std::byte> block(kBlockSize);
      if (length < kBlockSize) VALFS_TRY(read(begin, block));
      std::memcpy(block.data() + (at - begin), from.data() + done, length);
      const std::lock_guard lock(written_->mutex);
      written_->blocks[begin / kBlockSize] = std::move(block);
      written_->end = std::max(written_->end, at + length);
      done += length;
    }
    return {};
  }

  void write_durably(uint64_t, std::span<const std::byte>, Completion done) override {
    done(refused(path_));
  }
  Status sync() override { return {}; }
  Status resize(uint64_t) override { return refused(path_); }
  Status reserve(uint64_t) override { return refused(path_); }
  Status punch(uint64_t, uint64_t) override { return refused(path_); }
  Result<storage::FileInfo> info() override {
    VALFS_ASSIGN(storage::FileInfo info, below_->info());
    const std::lock_guard lock(written_->mutex);
    info.size = std::max(info.size, written_->end);
    return info;
  }

 private:
  const std::string path_;
  const std::shared_ptr<storage::File> below_;
  const std::shared_ptr<Written> written_;
  const std::function<void(uint64_t)>& on_read_;
};

Result<std::shared_ptr<storage::File>> DryStorage::open(const std::string& path,
                                                        storage::OpenMode mode) {
  if (mode == storage::OpenMode::kCreate) return refused(path);
  VALFS_ASSIGN(auto file, below_.open(path, storage::OpenMode::kRead));
  const std::lock_guard lock(mutex_);
  auto& written = written_[path];
  if (!written) written = std::make_shared<Written>();
  return std::make_shared<DryFile>(path, std::move(file), written, on_read);
}

Status DryStorage::make_directory(const std::string& path) {
  return refused(path);
}
Status DryStorage::remove(const std::string& path) {
  return refused(path);
}
Status DryStorage::rename(const std::string& from, const std::string&) {
  return refused(from);
}
Result<std::unique_ptr<storage::StagingMemory>> DryStorage::make_staging(const std::string& name,
                                                                         uint64_t) {
  return refused(name);
}
Status DryStorage::remove_staging(const std::string& name) {
  return refused(name);
}

}  // namespace valfs::inspect
