// A data directory that is looked at and not changed: files are opened for reading only; what is
// written to them stays in memory, where later reads find it. So recovery itself can run on the
// volume, staged groups and all, and leave every byte as it was.
//
// Whatever else would change the directory fails with EROFS. Thread-safe as Storage is.
#pragma once

#include <map>

#include "engine/storage/storage.h"

namespace valfs::inspect {

class DryStorage final : public storage::Storage {
 public:
  explicit DryStorage(storage::Storage& below) : below_(below) {}

  Result<std::shared_ptr<storage::File>> open(const std::string& path,
                                              storage::OpenMode mode) override;
  Status make_directory(const std::string& path) override;
  Status remove(const std::string& path) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status sync_directory(const std::string&) override { return {}; }
  Result<std::vector<std::string>> list(const std::string& path) override {
    return below_.list(path);
  }
  Result<storage::Space> space() override { return below_.space(); }
  Result<std::unique_ptr<storage::Lock>> lock() override { return below_.lock_to_look(); }
  std::string boot_id() override { return below_.boot_id(); }
  Result<std::unique_ptr<storage::StagingMemory>> make_staging(const std::string& name,
                                                               uint64_t size) override;
  Result<std::unique_ptr<storage::StagingMemory>> find_staging(const std::string& name) override {
    return below_.find_staging(name);
  }
  Status remove_staging(const std::string& name) override;
  void wait(std::unique_lock<std::mutex>& lock, std::condition_variable& changed,
            const std::function<bool()>& ready) override {
    below_.wait(lock, changed, ready);
  }
  std::string description() const override { return "read-only: " + below_.description(); }

  // Told of every read from below, in bytes: for progress. To be set before the first read.
  std::function<void(uint64_t bytes)> on_read;

 private:
  class DryFile;
  // What was written to a file: whole blocks, by number.
  struct Written {
    std::mutex mutex;
    std::map<uint64_t, std::vector<std::byte>> blocks;
    uint64_t end = 0;
  };

  storage::Storage& below_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Written>> written_;
};

}  // namespace valfs::inspect
