// Scrubbing a running store.
#include "engine/blob/blobs.h"
#include "engine/rooms.h"

namespace valfs {

Result<inspect::ScrubProgress> Store::scrub(uint64_t rate) {
  Core& core = rooms_->core;
  inspect::ScrubTarget target{core.storage, core.files, {}, {}, {}, {}};
  {
    // Whole groups up to here, and all of them durable after the sync.
    const std::unique_lock lock(core.state);
    core.writer->seal();
    for (const log::LogFileRef& file : core.files.all()) {
      const log::LogFile now = core.files.state_of(*file);
      target.logs.push_back({file, now.begin, now.end});
    }
  }
  VALFS_TRY(core.writer->sync());
  target.with_index = [&core](const auto& use) {
    const std::shared_lock lock(core.state);
    use(core.index);
  };
  target.checkpoint = [&core] {
    const std::lock_guard lock(core.superblock_mutex);
    return core.superblock.checkpoint;
  };
  target.check_blob = [this](log::ObjectId id, const inspect::ScrubTarget::Paced& paced,
                             const std::function<void(inspect::Finding)>& add) {
    const auto damaged = [&](std::optional<uint64_t> offset, const Error& error) {
      inspect::Finding finding;
      finding.kind = "blob";
      finding.inode = id;
      finding.offset = offset;
      finding.what = error.what;
      finding.next = "write the value anew, or delete it";
      add(std::move(finding));
    };
    const auto checked = rooms_->blobs.scrub(id, paced, damaged);
    if (!checked && checked.error().code != ENOENT) damaged({}, checked.error());
  };
  return rooms_->scrubber.run(target, rate);
}

inspect::ScrubProgress Store::scrub_progress() const {
  return rooms_->scrubber.progress();
}

void Store::stop_scrub(bool for_good) {
  rooms_->scrubber.stop(for_good);
}

}  // namespace valfs
