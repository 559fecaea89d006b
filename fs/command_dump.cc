// valfs dump: what lies in a data directory, line by line.
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <set>

#include "engine/storage/kernel_storage.h"
#include "fs/command.h"
#include "fs/data_directory.h"
#include "fs/record_json.h"

namespace valfs::fs {
namespace {

struct DumpCall {
  std::vector<std::string> paths;
  std::vector<uint64_t> ids;
  std::vector<std::string> files;
  std::vector<std::string> types;
  std::string payload = "none";
  bool super = false;
  bool checkpoint = false;
  bool groups = false;
};

bool is_directory(const std::string& path) {
  struct stat found {};
  return ::stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode);
}

class Dump {
 public:
  explicit Dump(const DumpCall& call) : call_(call) {}

  int run() {
    if (auto read = read_filters(); !read) return complain(read.error(), kWrongCall);
    for (const std::string& path : call_.paths) {
      const Status done = is_directory(path) ? dump_directory(path) : dump_file(path);
      if (!done) return complain(done.error(), kSystemError);
    }
    return kSuccess;
  }

 private:
  Status read_filters() {
    for (const std::string& name : call_.types) {
      if (name == "damage" || name == "DAMAGE") {
        damage_only_ = true;
        continue;
      }
      const auto type = record_type(name);
      if (!type)
        return fail(EINVAL, "--type " + name + ": no such record type; see: valfs dump --help");
      types_.insert(*type);
    }
    for (const std::string& text : call_.files) {  // "00000001" or "wal/00/00/00000001"
      const std::string name = text.substr(text.rfind('/') + 1);
      log::FileId id = 0;
      const auto parsed = std::from_chars(name.data(), name.data() + name.size(), id, 16);
      if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size()) {
        return fail(EINVAL, "--file " + text + ": not the name of a log file");
      }
      files_.insert(id);
    }
    ids_.insert(call_.ids.begin(), call_.ids.end());
    if (call_.payload == "hex") form_ = PayloadForm::kHex;
    if (call_.payload == "base64") form_ = PayloadForm::kBase64;
    return {};
  }

  Status dump_directory(const std::string& path) {
    VALFS_ASSIGN(const DataDirectory data, open_data_directory(path));
    storage::Storage& storage = *data.storage;
    if (call_.super) VALFS_TRY(dump_super(storage));
    auto reader = inspect::LogReader::open(storage);
    if (call_.checkpoint) VALFS_TRY(dump_checkpoints(storage, reader));
    if (call_.super || call_.checkpoint) return {};
    if (!reader) return tl::unexpected(reader.error());
    dump_reader(*reader);
    return {};
  }

  // A log file, wherever it lies.
  Status dump_file(const std::string& path) {
    const std::filesystem::path plain(path);
    storage::KernelStorageOptions options;
    options.data_directory = plain.has_parent_path() ? plain.parent_path().string() : ".";
    options.use_ring = false;
    VALFS_ASSIGN(const auto storage, storage::open_kernel_storage(options));
    const std::string name = plain.filename();
    VALFS_ASSIGN(auto file, storage->open(name, storage::OpenMode::kRead));
    if (name == log::kSuperblockPath) return dump_super(*storage);
    inspect::LogReader reader;
    if (!reader.add(std::move(file), path, 0)) {
      return fail(EINVAL, path + ": not a log file: it has neither a header nor a whole group");
    }
    dump_reader(reader);
    return {};
  }

  static Status dump_super(storage::Storage& storage) {
    VALFS_ASSIGN(auto file, storage.open(log::kSuperblockPath, storage::OpenMode::kRead));
    const auto found = log::read_superblock_copies(*file);
    for (size_t i = 0; i < found.copies.size(); i++) {
      OrderedJson json = {{"file", log::kSuperblockPath}, {"offset", i * log::kBlock}};
      if (found.copies[i]) {
        json.update(json_of(*found.copies[i]));
      } else {
        json["type"] = "DAMAGE";
        json["what"] = "a copy of the superblock is damaged";
      }
      print(json);
    }
    return {};
  }

  static Status dump_checkpoints(storage::Storage& storage,
                                 const Result<inspect::LogReader>& reader) {
    std::optional<log::VolumeId> volume;
    if (const auto superblock = log::read_superblock(storage)) volume = superblock->volume;
    for (const auto& entry : reader ? reader->files() : std::vector<inspect::LogReader::Entry>{}) {
      if (!volume && entry.identity.header) volume = entry.identity.header->volume;
    }
    if (!volume) return fail(EINVAL, "nothing names the volume: no superblock, no log file header");
    VALFS_ASSIGN(const auto names, storage.list("checkpoint"));
    for (const std::string& name : names) {
      uint64_t generation = 0;
      const auto parsed = std::from_chars(name.data(), name.data() + name.size(), generation, 16);
      if (parsed.ec != std::errc()) continue;
      OrderedJson json = {{"file", "checkpoint/" + name}, {"generation", generation}};
      index::Index index;
      const auto moment = checkpoint::read_checkpoint(storage, *volume, generation, index);
      if (moment) {
        json.update(json_of(*moment));
        json["inodes"] = index.inode_count();
        json["names"] = index.name_count();
      } else {
        json["type"] = "DAMAGE";
        json["what"] = moment.error().what;
      }
      print(json);
    }
    return {};
  }

  void dump_reader(const inspect::LogReader& reader) {
    for (const auto& entry : reader.files()) {
      if (!files_.empty() && files_.count(entry.file->id) == 0) continue;
      if (plain() || call_.groups) print_header(entry);
      log::GroupSequence group = 0;
      inspect::LogReader::Visitor visitor;
      visitor.group = [&](const recovery::FoundGroup& found) {
        group = found.header.sequence;
        if (call_.groups) print(json_of(found));
        return true;
      };
      visitor.record = [&](const log::Record& record, log::Position position, bool good) {
        if (wanted(record)) print(json_of(record, position, group, good, form_));
        return true;
      };
      visitor.freed = [&](uint64_t begin, uint64_t end) {
        if (!plain() && !call_.groups) return;
        print(
            {{"file", entry.path}, {"offset", begin}, {"type", "FREED"}, {"length", end - begin}});
      };
      visitor.footer = [&](const inspect::FooterPlace& footer) {
        const bool bad = !footer.right && damage_only_;
        if (plain() || call_.groups || bad) print(json_of(footer));
      };
      visitor.damage = [&](const inspect::Damage& damage) {
        if (damage.kind == inspect::Damage::Kind::kStretch) group = 0;
        if (wanted(damage)) print(json_of(damage));
        return true;
      };
      inspect::LogReader::scan(entry, visitor);
    }
    for (const auto& entry : reader.unidentified()) {
      if (files_.empty()) {
        print({{"file", entry.path},
               {"type", "DAMAGE"},
               {"length", entry.end},
               {"what", "nothing in it says that it is a log file"}});
      }
    }
  }

  bool plain() const { return types_.empty() && ids_.empty() && !damage_only_; }
  bool wanted(const log::Record& record) const {
    if (damage_only_ && types_.empty()) return false;
    if (!types_.empty() && types_.count(record.type) == 0) return false;
    if (ids_.empty()) return true;
    // The object itself, its names, and what they are in.
    const bool name =
        record.type == log::RecordType::kName || record.type == log::RecordType::kUnname;
    return ids_.count(record.id) > 0 || (name && ids_.count(record.a) > 0);
  }
  bool wanted(const inspect::Damage& damage) const {
    if (ids_.empty()) return true;
    return !damage.lost || ids_.count(damage.lost->id) > 0;
  }

  static void print_header(const inspect::LogReader::Entry& entry) {
    OrderedJson json = {{"file", entry.path}, {"offset", 0}};
    if (entry.identity.header) {
      json.update(json_of(*entry.identity.header));
    } else {
      json["type"] = "DAMAGE";
      json["length"] = log::kBlock;
      json["what"] = entry.identity.guessed
                         ? "the header and all groups are damaged; records are read by guess"
                         : "the header is damaged; the groups say what file it is";
      json["epoch"] = entry.file->epoch;
    }
    print(json);
  }

  static void print(const OrderedJson& json) { std::fputs((json.dump() + "\n").c_str(), stdout); }

  const DumpCall& call_;
  std::set<log::RecordType> types_;
  std::set<log::FileId> files_;
  std::set<log::ObjectId> ids_;
  bool damage_only_ = false;
  PayloadForm form_ = PayloadForm::kNone;
};

}  // namespace

void add_dump_command(CLI::App& app, Action& chosen) {
  auto call = std::make_shared<DumpCall>();
  CLI::App* command =
      app.add_subcommand("dump", "Print what lies in a data directory or log file, as JSON lines");
  command->add_option("PATH", call->paths, "Data directories, or single log files")->required();
  command->add_option("--id", call->ids, "Only records of these inodes, cookies or blobs")
      ->type_name("N")
      ->allow_extra_args(false);
  command->add_option("--file", call->files, "Only these log files: 00000001")
      ->type_name("NAME")
      ->allow_extra_args(false);
  command
      ->add_option("--type", call->types,
                   "Only these: INODE EXTENT TRUNCATE ZERO NAME UNNAME REMOVE BLOB_WRITE BLOB_SYNC "
                   "MANIFEST DAMAGE")
      ->type_name("TYPE")
      ->allow_extra_args(false);
  command->add_option("--payload", call->payload, "The bytes of values too: hex or base64")
      ->check(CLI::IsMember({"none", "hex", "base64"}));
  command->add_flag("--groups", call->groups, "The headers of groups too");
  command->add_flag("--super", call->super, "The copies of the superblock instead of the log");
  command->add_flag("--checkpoint", call->checkpoint, "The checkpoints instead of the log");
  command->footer(
      "One line a record: file and offset of the record, group, sequence, type, id, then an "
      "object\n"
      "named like the type with its fields (extent: offset, length, parent, name ...). Damaged\n"
      "stretches are lines of type DAMAGE; what the cleaner has given back at the beginning of a\n"
      "log file is FREED, the list of groups at its end FOOTER. A name that is not UTF-8 has its "
      "exact bytes in\n"
      "name_hex. Times are UTC. Nothing is changed; of a mounted volume, what has reached its log\n"
      "files is shown.\n\n"
      "  valfs dump /var/lib/valfs/demo --type NAME          the names in the log\n"
      "  valfs dump /var/lib/valfs/demo --id 17              the history of inode 17\n"
      "  valfs dump --payload base64 wal/00/00/00000003      one file, with the bytes of values\n\n"
      "Exit status: 0 done, 1 wrong call or no permission, 2 could not read.");
  command->callback([call, &chosen] { chosen = [call] { return Dump(*call).run(); }; });
}

}  // namespace valfs::fs
