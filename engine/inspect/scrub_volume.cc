// Scrubbing a data directory that is not mounted.
#include "engine/inspect/scrub.h"

namespace valfs::inspect {

Result<ScrubProgress> scrub_volume(storage::Storage& storage, Scrubber& scrubber, uint64_t rate) {
  DryStorage dry(storage);
  VALFS_ASSIGN(const log::Superblock superblock, log::read_superblock(dry));
  VALFS_ASSIGN(const auto volume, recover_dry(dry, superblock, recovery::MissingFile::kRefuse));
  ScrubTarget target{dry, volume->files, {}, {}, {}, {}};
  for (const log::LogFileRef& file : volume->files.all()) {
    target.logs.push_back({file, file->begin, file->end});
  }
  target.with_index = [&](const auto& use) { use(*volume->index); };
  target.checkpoint = [&] { return superblock.checkpoint; };
  target.check_blob = [&](log::ObjectId id, const ScrubTarget::Paced& paced,
                          const std::function<void(Finding)>& add) {
    const auto inode = volume->index->find(id);
    if (inode != nullptr) check_blob(dry, *volume, *inode, paced, add);
  };
  return scrubber.run(target, rate);
}

}  // namespace valfs::inspect
