// Log files that are gone for good, once somebody has accepted that: what is still known of them is
// written to the log anew, so that no later mount misses them.
#pragma once

#include "engine/checkpoint/checkpointer.h"
#include "engine/core.h"
#include "engine/recovery/recovery.h"

namespace valfs::recovery {

// Where a checkpoint remembers them, names and attributes whose records were lost are written
// again. Bytes stay lost: the extents that point to them answer EIO, and their inodes are marked,
// so that the value answers EIO as well where the checkpoint is lost too. Chunk sums that are lost
// leave their chunks unchecked. Then a manifest without the files says that they are gone, durably,
// and so does the superblock.
//
// To be called once at mount, before anybody else uses the store. Adds to recovered.warnings.
Status record_lost_files(Core& core, checkpoint::Checkpointer& checkpointer, Recovered& recovered);

}  // namespace valfs::recovery
