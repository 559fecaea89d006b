#include "engine/recovery/group_reader.h"

#include "engine/storage/io_thread.h"

namespace valfs::recovery {

GroupReader::GroupReader(std::vector<const FoundGroup*> groups, const log::LogFiles& files,
                         bool ahead)
    : groups_(std::move(groups)), files_(files) {
  if (ahead && groups_.size() > 1) {
    thread_ = storage::start_io_thread("valfs-replay", [this] { run(); });
  }
}

GroupReader::~GroupReader() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard guard(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

// What a scan has found whole has right payloads; readers of a value check them again.
void GroupReader::load(size_t number) {
  const FoundGroup& group = *groups_[number];
  Loaded& loaded = ring_[number % kAhead];
  bool unreadable = false;  // then the contents are not whole
  loaded.group = &group;
  read_image(group, loaded.image, unreadable);
  loaded.contents =
      log::read_group(loaded.image, group.header, files_.salt(*group.file), group.offset,
                      group.whole ? log::Payloads::kTrusted : log::Payloads::kChecked);
}

void GroupReader::run() {
  std::unique_lock lock(mutex_);
  while (loaded_ < groups_.size()) {
    changed_.wait(lock, [this] { return stopped_ || loaded_ < taken_ + kAhead; });
    if (stopped_) return;
    const size_t number = loaded_;
    lock.unlock();
    load(number);
    lock.lock();
    loaded_++;
    changed_.notify_all();
  }
}

const GroupReader::Loaded* GroupReader::next() {
  if (given_ == groups_.size()) return nullptr;
  const size_t number = given_++;
  if (!thread_.joinable()) {
    load(number);
  } else {
    std::unique_lock lock(mutex_);
    taken_ = number;
    changed_.notify_all();
    changed_.wait(lock, [this, number] { return loaded_ > number; });
  }
  return &ring_[number % kAhead];
}

}  // namespace valfs::recovery
