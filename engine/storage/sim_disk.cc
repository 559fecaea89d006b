#include "engine/storage/sim_disk.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "engine/base/check.h"
#include "engine/storage/open_file.h"
#include "engine/storage/sim_disk_internal.h"

namespace valfs::storage {

// Keeps the pages, so that a process may go on using them after a crash that it has not noticed.
class SimDisk::SimMemory final : public StagingMemory {
 public:
  explicit SimMemory(std::shared_ptr<Pages> pages) : pages_(std::move(pages)) {}
  std::span<std::byte> bytes() override { return {pages_->data, pages_->size}; }

 private:
  const std::shared_ptr<Pages> pages_;
};

class SimDisk::HeldLock final : public Lock {
 public:
  explicit HeldLock(SimDisk& disk) : disk_(disk), life_(disk.life_) {}
  ~HeldLock() override {
    if (disk_.lock_holder_ == life_) disk_.lock_holder_ = 0;
  }

 private:
  SimDisk& disk_;
  const uint64_t life_;
};

SimDisk::SimDisk(const SimDiskOptions& options)
    : options_(options), random_(options.seed), tree_(options.sector_size), name_(options.seed) {
  VALFS_CHECK(options.sector_size != 0 && kBlockSize % options.sector_size == 0);
}

SimDisk::~SimDisk() = default;

// Counts the operation, and lets the cut and the fault have their say: an errno, or 0 to go on.
int SimDisk::begin(OperationKind kind, const std::string& path, uint64_t offset, uint64_t length) {
  if (!powered_) return EIO;
  const bool observes = kind >= OperationKind::kOpen;
  if (!observes && operations_ == cut_) {
    stop();
    return EIO;
  }
  const uint64_t index = observes ? observations_++ : operations_++;
  const int error = fault_ ? fault_(Operation{kind, path, offset, length, index}) : 0;
  return error == kShort && kind != OperationKind::kRead ? EIO : error;
}

Status SimDisk::permit(OperationKind kind, const std::string& path, const char* action) {
  if (int error = begin(kind, path); error != 0) return system_failure(error, action, path);
  return {};
}

uint64_t SimDisk::available() const {
  uint64_t taken = tree_.allocated();
  for (const DurableWrite& write : in_flight_) taken += write.reserved;
  return options_.capacity - std::min(options_.capacity, taken);
}

Result<std::shared_ptr<File>> SimDisk::open(const std::string& path, OpenMode mode) {
  const bool create = mode == OpenMode::kCreate;
  VALFS_TRY(permit(create ? OperationKind::kCreate : OperationKind::kOpen, path,
                   create ? "create" : "open"));
  VALFS_ASSIGN(const SimTree::Id file, create ? tree_.create_file(path) : tree_.find_file(path));
  return std::make_shared<OpenedFile>(*this, file, path, mode != OpenMode::kRead);
}

Status SimDisk::make_directory(const std::string& path) {
  VALFS_TRY(permit(OperationKind::kMakeDirectory, path, "make directory"));
  return tree_.make_directory(path);
}

Status SimDisk::remove(const std::string& path) {
  VALFS_TRY(permit(OperationKind::kRemove, path, "remove"));
  return tree_.remove(path);
}

Status SimDisk::rename(const std::string& from, const std::string& to) {
  VALFS_TRY(permit(OperationKind::kRename, from, "rename"));
  return tree_.rename(from, to);
}

Status SimDisk::sync_directory(const std::string& path) {
  VALFS_TRY(permit(OperationKind::kSyncDirectory, path, "sync"));
  return tree_.sync_directory(path);
}

Result<std::vector<std::string>> SimDisk::list(const std::string& path) {
  VALFS_TRY(permit(OperationKind::kList, path, "list"));
  return tree_.list(path);
}

Result<Space> SimDisk::space() {
  if (!powered_) return fail(EIO, "cannot ask for the disk's space: it has no power");
  return Space{options_.capacity, available()};
}

Result<std::unique_ptr<Lock>> SimDisk::lock() {
  if (!powered_) return fail(EIO, "cannot lock the disk: it has no power");
  if (lock_holder_ != 0) return fail(EBUSY, "the disk is in use");
  lock_holder_ = life_;
  return std::make_unique<HeldLock>(*this);
}

std::string SimDisk::boot_id() {
  return "boot " + std::to_string(boot_) + " of disk " + std::to_string(name_);
}

Result<std::unique_ptr<StagingMemory>> SimDisk::make_staging(const std::string& name,
                                                             uint64_t size) {
  VALFS_TRY(permit(OperationKind::kMakeStaging, name, "make staging memory"));
  if (size == 0 || size % kBlockSize != 0)
    return system_failure(EINVAL, "make staging memory", name);
  std::shared_ptr<Pages>& pages = staging_[name];
  if (!pages || pages->size != size) pages = std::make_shared<Pages>(size);
  return std::make_unique<SimMemory>(pages);
}

Result<std::unique_ptr<StagingMemory>> SimDisk::find_staging(const std::string& name) {
  VALFS_TRY(permit(OperationKind::kFindStaging, name, "open staging memory"));
  const auto found = staging_.find(name);
  if (found == staging_.end()) return system_failure(ENOENT, "open staging memory", name);
  return std::make_unique<SimMemory>(found->second);
}

Status SimDisk::remove_staging(const std::string& name) {
  VALFS_TRY(permit(OperationKind::kRemoveStaging, name, "remove staging memory"));
  staging_.erase(name);
  return {};
}

void SimDisk::wait(std::unique_lock<std::mutex>& lock, std::condition_variable&,
                   const std::function<bool()>& ready) {
  while (!ready()) {
    lock.unlock();
    const bool may_become_ready = step();
    lock.lock();
    VALFS_CHECK(may_become_ready);  // else it would wait for ever
  }
}

size_t SimDisk::in_flight() const {
  return in_flight_.size();
}

bool SimDisk::step() {
  if (in_flight_.empty()) return false;
  const auto chosen = in_flight_.begin() + static_cast<ptrdiff_t>(random_.below(in_flight_.size()));
  DurableWrite write = std::move(*chosen);
  in_flight_.erase(chosen);
  const File::Completion done = std::move(write.done);
  Status outcome = complete(write);
  write.use.reset();  // the completion finds the disk as if this write were no more
  done(std::move(outcome));
  return true;
}

Status SimDisk::complete(DurableWrite& write) {
  if (write.error != 0) return system_failure(write.error, "write durably to", write.path);
  if (write.life != life_) return system_failure(EIO, "write durably to", write.path);
  const int error =
      begin(OperationKind::kCompletion, write.path, write.offset, write.bytes->size());
  if (!powered_) {
    interrupted_.push_back(write);
    return system_failure(EIO, "write durably to", write.path);
  }
  const bool bytes_stayed = std::equal(write.from.begin(), write.from.end(), write.bytes->begin());
  VALFS_CHECK(bytes_stayed);
  SimContent& content = tree_.change_content(write.file);
  if (error != 0) {
    content.write_some(write.offset, *write.bytes, random_);
    return system_failure(error, "write durably to", write.path);
  }
  content.write_synced(write.offset, *write.bytes);
  return {};
}

void SimDisk::cut_at(uint64_t n) {
  VALFS_CHECK(n > 0);
  cut_ = operations_ + n - 1;
}

void SimDisk::stop() {
  powered_ = false;
  detach_staging();
}

// From here on, what the process still does to its staging memory does not matter.
void SimDisk::detach_staging() {
  for (auto& [name, pages] : staging_) pages = std::make_shared<Pages>(*pages);
}

namespace {

std::atomic<uint64_t> all_crashes{0};

}  // namespace

uint64_t SimDisk::crashes() {
  return all_crashes;
}

void SimDisk::restart(CrashKind kind) {
  all_crashes++;
  if (powered_) stop();
  apply_in_flight(kind);
  if (kind == CrashKind::kPowerLoss) {
    tree_ = tree_.after_power_loss(random_);
    lose_staging();
    ++boot_;
  } else {
    tree_.close_all();
  }
  ++life_;
  lock_holder_ = 0;
  cut_ = kNever;
  powered_ = true;
}

// What has not ended may have reached the disk or not, in any order.
void SimDisk::apply_in_flight(CrashKind kind) {
  std::vector<DurableWrite> writes = std::exchange(interrupted_, {});
  for (DurableWrite& write : in_flight_) {
    if (write.life == life_ && write.error == 0) writes.push_back(write);
    write.reserved = 0;
  }
  while (!writes.empty()) {
    std::swap(writes[random_.below(writes.size())], writes.back());
    const DurableWrite& write = writes.back();
    SimContent& content = tree_.change_content(write.file);
    if (kind == CrashKind::kPowerLoss) {
      content.write(write.offset, *write.bytes);  // unsynced, so that a part of it may be lost
    } else {
      content.write_some(write.offset, *write.bytes, random_);
    }
    writes.pop_back();
  }
}

void SimDisk::lose_staging() {
  if (!options_.staging_on_disk) {
    staging_.clear();
    return;
  }
  for (auto& [name, pages] : staging_) {
    SimFate fate(random_);
    for (uint64_t offset = 0; offset < pages->size; offset += kBlockSize)
      if (fate.survivors(1) == 0) std::memset(pages->data + offset, 0, kBlockSize);
  }
}

std::unique_ptr<SimDisk> SimDisk::clone_after_power_loss(uint64_t seed) const {
  return clone_after(CrashKind::kPowerLoss, seed);
}

std::unique_ptr<SimDisk> SimDisk::clone_after_process_kill(uint64_t seed) const {
  return clone_after(CrashKind::kProcessKill, seed);
}

std::unique_ptr<SimDisk> SimDisk::clone_after(CrashKind kind, uint64_t seed) const {
  SimDiskOptions options = options_;
  options.seed = seed;
  auto clone = std::make_unique<SimDisk>(options);
  clone->tree_ = tree_;
  clone->in_flight_ = in_flight_;
  clone->interrupted_ = interrupted_;
  if (kind == CrashKind::kProcessKill || options_.staging_on_disk) clone->staging_ = staging_;
  clone->life_ = life_;
  clone->boot_ = boot_;
  clone->name_ = name_;
  clone->restart(kind);
  clone->in_flight_.clear();  // this disk will call their completions
  return clone;
}

Result<std::vector<std::byte>> SimDisk::contents(const std::string& path) const {
  VALFS_ASSIGN(const SimTree::Id file, tree_.find_file(path));
  std::vector<std::byte> bytes(tree_.content(file).size());
  tree_.content(file).read(0, bytes);
  return bytes;
}

Status SimDisk::corrupt(const std::string& path, uint64_t offset,
                        std::span<const std::byte> bytes) {
  VALFS_ASSIGN(const SimTree::Id file, tree_.find_file(path));
  tree_.change_content(file).damage(offset, bytes);
  return {};
}

Status SimDisk::flip_bit(const std::string& path, uint64_t bit) {
  VALFS_ASSIGN(const SimTree::Id file, tree_.find_file(path));
  std::byte byte{};
  tree_.content(file).read(bit / 8, {&byte, 1});
  byte ^= std::byte{1} << (bit % 8);
  tree_.change_content(file).damage(bit / 8, {&byte, 1});
  return {};
}

Status SimDisk::truncate(const std::string& path, uint64_t size) {
  VALFS_ASSIGN(const SimTree::Id file, tree_.find_file(path));
  SimContent& content = tree_.change_content(file);
  content.resize(size);
  content.sync();
  return {};
}

Status SimDisk::erase(const std::string& path) {
  return tree_.erase(path);
}

}  // namespace valfs::storage
