// What lies in a data directory, as JSON for people and programs.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/checkpoint/checkpoint.h"
#include "engine/inspect/log_reader.h"
#include "engine/log/superblock.h"
#include "fs/tool_output.h"

namespace valfs::fs {

enum class PayloadForm { kNone, kHex, kBase64 };

std::string_view name_of(log::RecordType type);  // "EXTENT"; "UNKNOWN" for a type that is not known
std::optional<log::RecordType> record_type(std::string_view name);  // any case

OrderedJson json_of(const log::Record& record, log::Position position, log::GroupSequence group,
                    bool payload_good, PayloadForm form);
OrderedJson json_of(const recovery::FoundGroup& group);
OrderedJson json_of(const inspect::Damage& damage);
OrderedJson json_of(const inspect::FooterPlace& footer);
OrderedJson json_of(const log::LogFileHeader& header);
OrderedJson json_of(const log::Superblock& superblock);
OrderedJson json_of(const checkpoint::Moment& moment);

}  // namespace valfs::fs
