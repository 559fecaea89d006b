#include "engine/core.h"

#include <algorithm>

namespace valfs {

Core::Core(storage::Storage& the_storage, const StoreOptions& the_options,
           const log::VolumeId& volume)
    : storage(the_storage),
      options(the_options),
      files(the_storage, volume),
      cache({.capacity_bytes = the_options.cache, .seed = the_options.cache_seed}),
      clock(the_options.clock ? the_options.clock
                              : [] { return std::chrono::steady_clock::now(); }) {}

void Core::when_durable(std::function<void()> action) {
  const std::lock_guard lock(deferred_mutex_);
  deferred_.push_back({writer->appended(), std::move(action)});
}

void Core::run_deferred() {
  const log::GroupSequence durable = writer->durable();
  std::vector<Deferred> due;
  {
    const std::lock_guard lock(deferred_mutex_);
    const auto later = std::stable_partition(
        deferred_.begin(), deferred_.end(),
        [durable](const Deferred& deferred) { return deferred.group <= durable; });
    due.assign(std::make_move_iterator(deferred_.begin()), std::make_move_iterator(later));
    deferred_.erase(deferred_.begin(), later);
  }
  for (const Deferred& deferred : due) deferred.action();
}

uint64_t Core::used_bytes() const {
  return files.usage().bytes + blob_bytes.load() + checkpoint_bytes.load();
}

uint64_t Core::available_bytes() const {
  uint64_t available = UINT64_MAX;
  if (const auto space = storage.space()) available = space->available;
  if (options.capacity > 0) {
    const uint64_t used = used_bytes();
    available = std::min(available, options.capacity > used ? options.capacity - used : 0);
  }
  return available;
}

uint64_t Core::dead_bytes() const {
  const uint64_t used = files.used();
  const uint64_t live = live_bytes();
  return used > live ? used - live : 0;
}

}  // namespace valfs
