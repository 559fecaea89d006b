// The lock on a data directory.
#pragma once

#include <memory>
#include <string>

#include "engine/base/status.h"
#include "engine/storage/durable_writer.h"
#include "engine/storage/open_file.h"
#include "engine/storage/storage.h"

namespace valfs::storage {

// Takes flock on the file `lock` of `directory`, and writes our process id into it. Its descriptor
// goes to `writer` too: a killed process keeps the lock until the kernel has dropped its writes, so
// that none of them can land in a file that the next owner has already read. A dead process is
// given 2 s for that; one that lives means EBUSY.
//
// The lock goes with the open file: after a fork, the child holds it as well.
Result<std::unique_ptr<Lock>> lock_directory(const OpenFile& directory, DurableWriter& writer);

// The same lock for who only reads: nothing is written, and where the file is missing there is
// nothing to lock.
Result<std::unique_ptr<Lock>> lock_directory_to_look(const OpenFile& directory);

}  // namespace valfs::storage
