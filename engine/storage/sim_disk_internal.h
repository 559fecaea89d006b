// What the files of the simulated disk share, and nobody else needs.
#pragma once

#include <cstdlib>
#include <cstring>

#include "engine/storage/sim_disk.h"

namespace valfs::storage {

// Zeroed memory that is aligned like a mapping.
struct SimDisk::Pages {
  explicit Pages(uint64_t count)
      : size(count), data(static_cast<std::byte*>(std::aligned_alloc(kBlockSize, count))) {
    std::memset(data, 0, size);
  }
  Pages(const Pages& other) : Pages(other.size) { std::memcpy(data, other.data, size); }
  Pages& operator=(const Pages&) = delete;
  ~Pages() { std::free(data); }

  const uint64_t size;
  std::byte* const data;
};

struct SimDisk::DurableWrite {
  SimTree::Id file;
  SimTree::Use use;
  std::string path;
  uint64_t offset;
  std::span<const std::byte> from;
  std::shared_ptr<const std::vector<std::byte>> bytes;  // what `from` held at the start
  File::Completion done;
  uint64_t life;
  uint64_t reserved;  // bytes of the disk that it will take
  int error;          // it ends with this, and never wrote anything
};

class SimDisk::OpenedFile final : public File {
 public:
  OpenedFile(SimDisk& disk, SimTree::Id file, std::string path, bool writable);

  Result<size_t> read(uint64_t offset, std::span<std::byte> into) override;
  Status write(uint64_t offset, std::span<const std::byte> from) override;
  void write_durably(uint64_t offset, std::span<const std::byte> from, Completion done) override;
  Status sync() override;
  Status resize(uint64_t size) override;
  Status reserve(uint64_t size) override;
  Status punch(uint64_t offset, uint64_t length) override;
  Result<FileInfo> info() override;

 private:
  bool alive() const;
  int begin(OperationKind kind, uint64_t offset = 0, uint64_t length = 0);
  int begin_change(OperationKind kind, uint64_t offset, uint64_t length);
  const SimContent& content() const { return disk_.tree_.content(file_); }
  SimContent& change_content() { return disk_.tree_.change_content(file_); }

  SimDisk& disk_;
  const SimTree::Id file_;
  const SimTree::Use use_;
  const std::string path_;
  const bool writable_;
  const uint64_t life_;
};

}  // namespace valfs::storage
