// The rooms of one open store, put together. Private to the engine.
#pragma once

#include <thread>

#include "engine/blob/blobs.h"
#include "engine/checkpoint/checkpointer.h"
#include "engine/cleaner/cleaner.h"
#include "engine/core.h"
#include "engine/inspect/scrub.h"
#include "engine/store.h"
#include "engine/upkeep.h"
#include "engine/value/value_reader.h"

namespace valfs {

struct Store::Rooms {
  Rooms(std::unique_ptr<storage::Storage> the_storage, std::unique_ptr<storage::Lock> the_lock,
        const StoreOptions& options, const log::VolumeId& volume)
      : storage(std::move(the_storage)),
        lock(std::move(the_lock)),
        core(*storage, options, volume),
        values(core),
        blobs(core, values),
        checkpointer(core, blobs),
        cleaner(core, blobs, checkpointer),
        upkeep(core, blobs, checkpointer, cleaner) {}

  // Destroyed from the last to the first: the lock goes after everything that does I/O.
  std::unique_ptr<storage::Storage> storage;
  std::unique_ptr<storage::Lock> lock;
  Core core;
  ValueReader values;
  blob::Blobs blobs;
  checkpoint::Checkpointer checkpointer;
  cleaner::Cleaner cleaner;
  Upkeep upkeep;
  inspect::Scrubber scrubber;
  recovery::Recovered recovered;
  bool closed = false;
};

}  // namespace valfs
