// A file of the data directory, by system calls.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>

#include "engine/storage/durable_writer.h"
#include "engine/storage/open_file.h"
#include "engine/storage/open_files.h"
#include "engine/storage/storage.h"

namespace valfs::storage {

class KernelFile final : public File {
 public:
  // `file` is what `path`, relative to `directory`, leads to; `flags` are those to open it again
  // with. `directory` and `writer` outlive every use of this.
  KernelFile(OpenFile file, std::string path, int flags, const OpenFile& directory,
             DurableWriter& writer, std::shared_ptr<OpenFiles> open_files);
  ~KernelFile() override;

  Result<size_t> read(uint64_t offset, std::span<std::byte> into) override;
  Result<size_t> read_at_once(uint64_t offset, std::span<std::byte> into) override;
  Status write(uint64_t offset, std::span<const std::byte> from) override;
  void write_durably(uint64_t offset, std::span<const std::byte> from, Completion done) override;
  void write_durably_here(uint64_t offset, std::span<const std::byte> from,
                          Completion done) override;
  Status sync() override;
  Status resize(uint64_t size) override;
  Status reserve(uint64_t size) override;
  Status punch(uint64_t offset, uint64_t length) override;
  Result<FileInfo> info() override;

  // For OpenFiles.
  uint64_t last_used() const { return last_used_.load(std::memory_order_relaxed); }
  bool close_if_idle();
  Status keep();  // open for good

 private:
  using Descriptor = std::shared_ptr<const OpenFile>;

  Result<Descriptor> descriptor();
  Status open_again();
  Result<Descriptor> direct();
  DurableWrite durable_write(uint64_t offset, std::span<const std::byte> from, Completion done);

  const std::string path_;
  const int flags_;
  const OpenFile& directory_;
  DurableWriter& writer_;
  const std::shared_ptr<OpenFiles> open_files_;
  std::atomic<uint64_t> last_used_{0};
  std::atomic<uint64_t> changes_{0};  // raised behind each change, while its descriptor is in use
  std::atomic<uint64_t> synced_{0};   // `changes_` before the last sync that succeeded

  std::mutex mutex_;     // guards what follows
  Descriptor buffered_;  // null while the file is closed
  Descriptor direct_;    // O_DIRECT; null until the first durable write
  bool kept_ = false;
};

}  // namespace valfs::storage
