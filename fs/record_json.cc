#include "fs/record_json.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>

namespace valfs::fs {
namespace {

using log::Record;
using log::RecordType;

constexpr std::array<std::pair<RecordType, std::string_view>, 10> kTypes{{
    {RecordType::kInode, "INODE"},
    {RecordType::kExtent, "EXTENT"},
    {RecordType::kTruncate, "TRUNCATE"},
    {RecordType::kZero, "ZERO"},
    {RecordType::kName, "NAME"},
    {RecordType::kUnname, "UNNAME"},
    {RecordType::kRemove, "REMOVE"},
    {RecordType::kBlobWrite, "BLOB_WRITE"},
    {RecordType::kBlobSync, "BLOB_SYNC"},
    {RecordType::kManifest, "MANIFEST"},
}};

std::string octal(uint32_t mode) {
  char text[16];
  std::snprintf(text, sizeof text, "%07o", mode);
  return text;
}

const char* kind_of(uint32_t mode) {
  if (S_ISDIR(mode)) return "directory";
  if (S_ISLNK(mode)) return "symlink";
  if (S_ISREG(mode)) return "file";
  if (S_ISFIFO(mode)) return "fifo";
  if (S_ISSOCK(mode)) return "socket";
  return S_ISCHR(mode) ? "character device" : S_ISBLK(mode) ? "block device" : "unknown";
}

OrderedJson json_of(log::Position position) {
  return {{"file", log::log_file_path(position.file())}, {"offset", position.offset()}};
}

OrderedJson inode_fields(const Record& record) {
  OrderedJson json;
  if (record.body.size() != sizeof(index::Attributes)) {
    json["body_hex"] = hex(record.body);
    return json;
  }
  index::Attributes attributes;
  std::memcpy(&attributes, record.body.data(), sizeof attributes);
  json["kind"] = kind_of(attributes.mode);
  json["mode"] = octal(attributes.mode);
  json["uid"] = attributes.uid;
  json["gid"] = attributes.gid;
  json["links"] = attributes.links;
  json["size"] = attributes.size;
  if (attributes.device != 0) json["device"] = attributes.device;
  if (attributes.blob != 0) json["blob"] = attributes.blob;
  json["accessed"] = iso_time(attributes.accessed());
  json["modified"] = iso_time(attributes.modified());
  json["changed"] = iso_time(attributes.changed());
  json["born"] = iso_time(attributes.born());
  if ((record.flags & log::kLossy) != 0) json["lossy"] = true;
  return json;
}

void put_compression(OrderedJson& json, const Record& record) {
  const auto frames = log::Frames::read(record.body, record.payload.size());
  if (!frames) {
    json["compression"] = "unknown";
    return;
  }
  json["compression"] = frames->algorithm() == Compression::kLz4 ? "lz4" : "zstd";
  json["stored_length"] = record.payload.size();
  json["frames"] = frames->count();
}

// The bytes of the value, if they can be had; else what is stored.
std::vector<std::byte> shown_bytes(const Record& record, bool payload_good) {
  auto raw = payload_good ? log::raw_bytes(record) : std::nullopt;
  return raw ? std::move(*raw) : std::vector(record.payload.begin(), record.payload.end());
}

OrderedJson extent_fields(const Record& record) {
  OrderedJson json;
  json["offset"] = record.a;
  json["length"] = log::raw_length(record, record.payload.size()).value_or(0);
  if (log::is_compressed(record)) put_compression(json, record);
  if ((record.flags & log::kIncompressible) != 0) json["incompressible"] = true;
  if (record.b != 0) json["parent"] = record.b;
  if (!record.name.empty()) put_text(json, "name", record.name);
  if ((record.flags & log::kSums) != 0) json["chunk_sums"] = true;
  if ((record.flags & log::kCopy) != 0 && record.body.size() >= sizeof(log::Position)) {
    log::Position from;
    std::memcpy(&from, record.body.data(), sizeof from);
    json["copied_from"] = json_of(from);
  }
  return json;
}

OrderedJson name_fields(const Record& record) {
  OrderedJson json;
  json["parent"] = record.b;
  if (record.type == RecordType::kName) put_text(json, "name", record.name);
  json["inode"] = record.a;
  return json;
}

OrderedJson json_of(const log::ManifestEntry& entry) {
  OrderedJson json = {{"file", log::log_file_path(entry.file)},
                      {"begin", uint64_t{entry.begin} * log::kBlock}};
  if (entry.end != 0) json["end"] = uint64_t{entry.end} * log::kBlock;  // else it is written to
  if (entry.empty != 0) json["empty"] = true;
  return json;
}

OrderedJson manifest_fields(const Record& record) {
  const log::Manifest manifest(0, record.a, static_cast<log::FileId>(record.b), record.payload);
  OrderedJson files = OrderedJson::array();
  for (const log::ManifestEntry& entry : manifest.entries()) files.push_back(json_of(entry));
  return {{"newest_freed", manifest.newest_freed()},
          {"newest_log_file", log::log_file_path(manifest.newest_file())},
          {"log_files", files}};
}

std::string name_of(log::Stream stream) {
  switch (stream) {
    case log::Stream::kUser:
      return "user";
    case log::Stream::kWarm:
      return "warm";
    case log::Stream::kCold:
      return "cold";
  }
  return std::to_string(static_cast<uint16_t>(stream));
}

OrderedJson fields_of(const Record& record) {
  switch (record.type) {
    case RecordType::kInode:
      return inode_fields(record);
    case RecordType::kExtent:
      return extent_fields(record);
    case RecordType::kTruncate:
    case RecordType::kBlobSync:
      return {{"size", record.a}};
    case RecordType::kZero:
    case RecordType::kBlobWrite:
      return {{"offset", record.a}, {"length", record.b}};
    case RecordType::kName:
    case RecordType::kUnname:
      return name_fields(record);
    case RecordType::kManifest:
      return manifest_fields(record);
    case RecordType::kRemove:
      return nullptr;
  }
  return {{"a", record.a}, {"b", record.b}, {"body_hex", hex(record.body)}};
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return result;
}

}  // namespace

std::string_view name_of(RecordType type) {
  const auto found = std::find_if(kTypes.begin(), kTypes.end(),
                                  [type](const auto& entry) { return entry.first == type; });
  return found == kTypes.end() ? "UNKNOWN" : found->second;
}

std::optional<RecordType> record_type(std::string_view name) {
  const auto found = std::find_if(kTypes.begin(), kTypes.end(), [name](const auto& entry) {
    return lower(entry.second) == lower(name);
  });
  if (found == kTypes.end()) return std::nullopt;
  return found->first;
}

OrderedJson json_of(const Record& record, log::Position position, log::GroupSequence group,
                    bool payload_good, PayloadForm form) {
  OrderedJson json = json_of(position);
  json["group"] = group == 0 ? OrderedJson(nullptr) : OrderedJson(group);
  json["sequence"] = record.sequence;
  json["type"] = name_of(record.type);
  json["id"] = record.id;
  const OrderedJson fields = fields_of(record);
  if (!fields.is_null()) json[lower(name_of(record.type))] = fields;
  if (record.time != Time{}) json["time"] = iso_time(record.time);
  if ((record.flags & log::kCopy) != 0) json["copy"] = true;
  if (record.origin != 0) json["first_in_group"] = record.origin;
  json["crc"] = "good";  // a record whose header is damaged is no record, but a damaged stretch
  if (!record.payload.empty() || !payload_good) {
    json["payload_crc"] = payload_good ? "good" : "bad";
  }
  if (form == PayloadForm::kHex) json["payload_hex"] = hex(shown_bytes(record, payload_good));
  if (form == PayloadForm::kBase64)
    json["payload_base64"] = base64(shown_bytes(record, payload_good));
  return json;
}

OrderedJson json_of(const recovery::FoundGroup& group) {
  const log::GroupHeader& header = group.header;
  OrderedJson json = json_of(log::Position::at(group.file->id, group.offset));
  json["group"] = header.sequence;
  json["type"] = "GROUP";
  json["length"] = group.length;
  json["stream"] = name_of(header.stream);
  json["records"] = header.record_count;
  json["epoch"] = header.epoch;
  json["watermark"] = header.watermark;
  json["next_record"] = header.next_record;
  json["next_object"] = header.next_object;
  if (header.previous_end != 0) json["previous_end"] = json_of(log::Position{header.previous_end});
  json["crc"] = "good";
  json["whole"] = group.whole;
  return json;
}

OrderedJson json_of(const inspect::Damage& damage) {
  OrderedJson json = {{"file", log::log_file_path(damage.file)}, {"offset", damage.begin}};
  json["group"] = damage.group == 0 ? OrderedJson(nullptr) : OrderedJson(damage.group);
  json["type"] = "DAMAGE";
  json["length"] = damage.end - damage.begin;
  json["what"] = damage.text();
  if (damage.lost) {
    json["id"] = damage.lost->id;
    json["record_type"] = name_of(damage.lost->type);
  }
  return json;
}

OrderedJson json_of(const inspect::FooterPlace& footer) {
  OrderedJson json = json_of(log::Position::at(footer.file, footer.begin));
  json["type"] = "FOOTER";
  json["length"] = footer.end - footer.begin;
  if (footer.footer) {
    json["groups"] = footer.footer->groups.size();
    json["large_payloads"] = footer.footer->gaps.size();
  }
  json["crc"] = footer.footer ? "good" : "bad";
  if (footer.footer) json["right"] = footer.right;
  return json;
}

OrderedJson json_of(const log::LogFileHeader& header) {
  return {{"type", "LOG_FILE"},     {"version", header.version}, {"volume", header.volume.text()},
          {"file_id", header.file}, {"epoch", header.epoch},     {"size", header.size},
          {"crc", "good"}};
}

OrderedJson json_of(const log::Superblock& superblock) {
  OrderedJson cuts = OrderedJson::array();
  for (uint32_t i = 0; i < std::min(superblock.cut_count, log::Superblock::kMaxCuts); i++) {
    cuts.push_back({{"file", log::log_file_path(superblock.cuts[i].file)},
                    {"offset", superblock.cuts[i].offset}});
  }
  OrderedJson freed = OrderedJson::array();
  for (const log::FileId file : superblock.freed) {
    if (file != 0) freed.push_back(log::log_file_path(file));
  }
  const auto end = std::find(superblock.boot_id.begin(), superblock.boot_id.end(), '\0');
  return {{"type", "SUPERBLOCK"},
          {"version", superblock.version},
          {"compat", superblock.compat},
          {"ro_compat", superblock.ro_compat},
          {"incompat", superblock.incompat},
          {"generation", superblock.generation},
          {"volume", superblock.volume.text()},
          {"epoch", superblock.epoch},
          {"clean", superblock.clean != 0},
          {"boot_id", std::string(superblock.boot_id.begin(), end)},
          {"durable_group", superblock.durable_group},
          {"checkpoint", superblock.checkpoint},
          {"next_record", superblock.next_record},
          {"next_object", superblock.next_object},
          {"next_file", superblock.next_file},
          {"cuts", cuts},
          {"freed", freed},
          {"crc", "good"}};
}

OrderedJson json_of(const checkpoint::Moment& moment) {
  OrderedJson files = OrderedJson::array();
  for (const checkpoint::FileEntry& file : moment.files) {
    files.push_back({{"file", log::log_file_path(file.id)},
                     {"epoch", file.epoch},
                     {"stream", name_of(file.stream)},
                     {"begin", file.begin},
                     {"end", file.end},
                     {"highest_object", file.highest_object},
                     {"first_group", file.first_group},
                     {"last_group", file.last_group}});
  }
  return {{"type", "CHECKPOINT"},
          {"covers_group", moment.covers},
          {"next_record", moment.next_record},
          {"next_object", moment.next_object},
          {"newest_freed", moment.newest_freed},
          {"log_files", files}};
}

}  // namespace valfs::fs
