// Mends what a check has found, without destroying anything: what is taken out of use, and every
// block that is written over, is in DATA/quarantine/<stamp>/ afterwards, with a report.
#pragma once

#include "engine/inspect/check.h"
#include "engine/options.h"

namespace valfs::inspect {

// Told of everything that is done: a sentence without its full stop, and where (may be "").
using Acted = std::function<void(const std::string& what, const std::string& file)>;

// What can be mended file by file: superblock, headers of log files; damaged checkpoints and files
// that nothing leads to move aside. The caller holds the lock. `stamp` names this repair. On error
// what was done before stays done; repair can be run again.
Status repair_files(storage::Storage& storage, const Diagnosis& diagnosis, const std::string& stamp,
                    const Acted& acted);

// True if the volume itself has to be changed: lost log files, the tree, a new checkpoint.
bool needs_store(const Diagnosis& diagnosis);

// Opens the store as a mount does (takes the lock), accepts lost log files, puts names and link
// counts right, writes a checkpoint, closes it.
Status repair_store(std::unique_ptr<storage::Storage> storage, StoreOptions options,
                    const Diagnosis& diagnosis, const Acted& acted);

}  // namespace valfs::inspect
