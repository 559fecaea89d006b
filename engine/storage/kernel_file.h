// A file of the data directory, by system calls.
#pragma once

#include <memory>
#include <mutex>

#include "engine/storage/durable_writer.h"
#include "engine/storage/open_file.h"
#include "engine/storage/storage.h"

namespace valfs::storage {

class KernelFile final : public File {
 public:
  // `writer` outlives this.
  KernelFile(OpenFile file, DurableWriter& writer);

  Result<size_t> read(uint64_t offset, std::span<std::byte> into) override;
  Status write(uint64_t offset, std::span<const std::byte> from) override;
  void write_durably(uint64_t offset, std::span<const std::byte> from, Completion done) override;
  Status sync() override;
  Status resize(uint64_t size) override;
  Status punch(uint64_t offset, uint64_t length) override;
  Result<FileInfo> info() override;

 private:
  std::shared_ptr<const OpenFile> direct(int& error);

  const std::shared_ptr<const OpenFile> buffered_;
  DurableWriter& writer_;

  std::mutex mutex_;
  std::shared_ptr<const OpenFile> direct_;  // O_DIRECT; null until the first durable write
};

}  // namespace valfs::storage
