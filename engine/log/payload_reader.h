// Reads bytes of a value out of a log file, and checks them.
#pragma once

#include <functional>
#include <span>

#include "engine/base/buffer.h"
#include "engine/index/extent_map.h"
#include "engine/log/log_files.h"

namespace valfs::log {

// Whether a read may wait for the disk; where it may not, it answers EAGAIN if it would have to.
enum class Wait { kForDisk, kNot };

// Reads into.size() bytes of `extent`, from `skip` bytes behind its start. EIO if the record's
// header or a payload chunk that is touched does not match its CRC, or a frame cannot be expanded;
// the text names log file and offset. Reads whole chunks (16 KiB) and frames (64 KiB), never the
// whole value for a part of it.
Status read_payload(const LogFile& file, const Salt& salt, const index::Extent& extent,
                    uint64_t skip, std::span<std::byte> into, Wait wait = Wait::kForDisk);

// Up to `length` bytes of a record, from `from` bytes behind its start on.
using FetchRecord = std::function<Result<Buffer>(uint64_t from, uint64_t length)>;
// The same for a compressed extent, wherever its record lies.
Status read_compressed(const FetchRecord& fetch, const Salt& salt, const index::Extent& extent,
                       uint64_t skip, std::span<std::byte> into);

}  // namespace valfs::log
