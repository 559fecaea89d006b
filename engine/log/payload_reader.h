// Reads bytes of a value out of a log file, and checks them.
#pragma once

#include <span>

#include "engine/index/extent_map.h"
#include "engine/log/log_files.h"

namespace valfs::log {

// Reads into.size() bytes of `extent`, from `skip` bytes behind its start. EIO if the record's
// header or a payload chunk that is touched does not match its CRC; the text names log file and
// offset. Reads whole chunks (16 KiB), never the whole value for a part of it.
Status read_payload(const LogFile& file, const Salt& salt, const index::Extent& extent,
                    uint64_t skip, std::span<std::byte> into);

}  // namespace valfs::log
