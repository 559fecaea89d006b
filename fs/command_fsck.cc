// valfs fsck: checks a volume that is not mounted, and mends it.
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "engine/inspect/repair.h"
#include "fs/command.h"
#include "fs/data_directory.h"
#include "fs/tool_output.h"

namespace valfs::fs {
namespace {

struct FsckCall {
  std::string data;
  bool repair = false;
  bool json = false;
  bool quiet = false;
};

class Fsck {
 public:
  explicit Fsck(const FsckCall& call) : call_(call), bar_(call.quiet || call.json) {}

  int run() {
    auto first = check();
    if (!first) return failed(first.error());
    if (!call_.repair || !wants_repair(*first)) return summarise(*first, false);
    say("mending what can be mended");
    if (auto mended = repair(*first); !mended) return failed(mended.error());
    say("checking again");
    auto second = check();
    if (!second) return failed(second.error());
    return summarise(*second, first->errors > 0);
  }

 private:
  static bool wants_repair(const inspect::Diagnosis& found) {
    return found.errors > 0 || !found.strays.empty();
  }

  Result<inspect::Diagnosis> check() {
    VALFS_ASSIGN(const DataDirectory data, open_data_directory(call_.data));
    auto lock = data.storage->lock_to_look();
    if (!lock) return tl::unexpected(explain_lock(lock.error(), data.path));
    inspect::Observer observer;
    observer.found = [this](const inspect::Finding& finding) {
      bar_.clear();
      print(call_.json ? json_of(finding).dump() : text_of(finding));
    };
    observer.progress = [this](const inspect::Progress& progress) { bar_.show(progress); };
    auto found = inspect::check_volume(*data.storage, observer);
    bar_.clear();
    return found;
  }

  Status repair(const inspect::Diagnosis& found) {
    const auto acted = [this](const std::string& what, const std::string& file) {
      if (call_.json) {
        OrderedJson json;
        json["severity"] = "repair";
        put_text(json, "what", what);
        if (!file.empty()) put_text(json, "file", file);
        return print(json.dump());
      }
      print("repair: " + (file.empty() ? "" : printable(file) + ": ") + printable(what) + ".");
    };
    {
      VALFS_ASSIGN(const DataDirectory data, open_data_directory(call_.data));
      auto lock = data.storage->lock();
      if (!lock) return tl::unexpected(explain_lock(lock.error(), data.path));
      VALFS_TRY(inspect::repair_files(*data.storage, found, stamp(), acted));
    }
    if (!inspect::needs_store(found)) return {};
    VALFS_ASSIGN(DataDirectory data, open_data_directory(call_.data));
    StoreOptions options;
    options.root_uid = ::geteuid();
    options.root_gid = ::getegid();
    return inspect::repair_store(std::move(data.storage), options, found, acted);
  }

  static std::string stamp() {
    const time_t now = ::time(nullptr);
    struct tm parts {};
    ::gmtime_r(&now, &parts);
    char text[32];
    std::strftime(text, sizeof text, "%Y%m%dT%H%M%SZ", &parts);
    return std::string(text) + "-" + std::to_string(::getpid());
  }

  int summarise(const inspect::Diagnosis& found, bool corrected) {
    const int status = found.errors > 0 ? kUncorrected : corrected ? kCorrected : kClean;
    if (call_.json) {
      OrderedJson json;
      json["severity"] = "summary";
      json["errors"] = found.errors;
      json["notes"] = found.notes;
      json["corrected"] = corrected;
      json["status"] = status;
      json["log_files"] = found.log_files;
      json["log_bytes"] = found.log_bytes;
      json["groups"] = found.groups;
      json["records"] = found.records;
      json["inodes"] = found.inodes;
      json["names"] = found.names;
      json["blobs"] = found.blobs;
      json["blob_bytes"] = found.blob_bytes;
      print(json.dump());
      return status;
    }
    std::string text = call_.data + ": " + std::to_string(found.log_files) + " log files, " +
                       std::to_string(found.groups) + " groups, " + std::to_string(found.records) +
                       " records, " + std::to_string(found.names) + " names, " +
                       std::to_string(found.blobs) + " blobs: ";
    if (status == kClean) text += "clean";
    if (status == kCorrected) text += "errors were corrected";
    if (status == kUncorrected) {
      text += std::to_string(found.errors) + (found.errors == 1 ? " error" : " errors");
      if (call_.repair) text += " left that no repair can undo";
    }
    print(text + ".");
    return status;
  }

  int failed(const Error& error) {
    bar_.clear();
    complain(error.what);
    return kOperationalError;
  }

  void say(const std::string& text) {
    if (!call_.json && !call_.quiet) print(text + ":");
  }
  static void print(const std::string& line) {
    std::fputs((line + "\n").c_str(), stdout);
    std::fflush(stdout);
  }

  const FsckCall& call_;
  ProgressBar bar_;
};

}  // namespace

void add_fsck_command(CLI::App& app, Action& chosen) {
  auto call = std::make_shared<FsckCall>();
  CLI::App* command = app.add_subcommand("fsck", "Check a volume that is not mounted, and mend it");
  command->add_option("DATA", call->data, "The data directory")->required();
  command->add_flag("--repair", call->repair,
                    "Mend what can be mended; nothing is destroyed: what is taken out of use or "
                    "written over is in DATA/quarantine afterwards");
  command->add_flag("--json", call->json, "Findings as JSON, one a line; a summary last");
  command->add_flag("-q,--quiet", call->quiet, "No progress");
  command->footer(
      "Checks the superblock, every log file (headers, groups, records, checksums of values), the\n"
      "sequence of groups, checkpoint against log, names and inodes, live bytes, and blobs with\n"
      "their sums. Without --repair not one byte on the disk changes.\n\n"
      "--repair writes superblock copies and headers of log files anew, replaces a damaged\n"
      "checkpoint, puts what has lost its name into lost+found, sets link counts, and accepts log\n"
      "files that are missing: the values that lost bytes are listed, and answer EIO there. Put a\n"
      "missing file back from a copy instead, if you have one. Damaged values stay as they are.\n\n"
      "Exit status, as of fsck(8): 0 clean, 1 errors corrected, 4 errors left, 8 could not check\n"
      "(mounted, no volume, no permission), 16 wrong call. Notes are not errors.");
  command->callback([call, &chosen] { chosen = [call] { return Fsck(*call).run(); }; });
}

}  // namespace valfs::fs
