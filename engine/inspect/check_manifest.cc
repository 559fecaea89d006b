// What the manifest says of the log files, and what they are. Whether they are there at all, and
// long enough, recovery itself asks.
#include <algorithm>

#include "engine/inspect/check.h"

namespace valfs::inspect {
namespace {

constexpr const char* kNext = "keep a copy of the data directory and report this";

class ManifestCheck {
 public:
  ManifestCheck(const DryVolume& volume, const std::function<void(Finding)>& add)
      : volume_(volume), manifest_(volume.verdict.manifest), add_(add) {}

  void run() {
    if (manifest_.group() == 0) return;
    log::FileId last = 0;
    for (const log::ManifestEntry& entry : manifest_.entries()) {
      check_entry(entry);
      if (entry.file <= last) report(entry.file, "the manifest does not list log files by number");
      last = entry.file;
    }
    if (manifest_.newest_freed() >= manifest_.group()) {
      report(0, "the manifest says that a group younger than itself was freed");
    }
    for (const recovery::FoundGroup& group : volume_.verdict.kept) check_group(group);
    for (const log::FileId id : volume_.recovered.unused) {
      if (!manifest_.gone(id)) continue;
      Finding finding;
      finding.severity = Finding::Severity::kNote;
      finding.kind = "manifest";
      finding.file = log::log_file_path(id);
      finding.what = "the cleaner has freed this log file: the next mount removes it";
      add_(std::move(finding));
    }
  }

 private:
  void report(log::FileId file, std::string what) {
    Finding finding;
    finding.kind = "manifest";
    if (file != 0) finding.file = log::log_file_path(file);
    finding.what = std::move(what) + " (group " + std::to_string(manifest_.group()) + ")";
    finding.next = kNext;
    add_(std::move(finding));
  }

  void check_entry(const log::ManifestEntry& entry) {
    const bool starts_early = entry.begin * log::kBlock < log::kFirstGroupOffset;
    if (starts_early || (entry.end != 0 && entry.end < entry.begin)) {
      report(entry.file, "by the manifest this log file ends before it begins");
    }
  }

  // A group that is older than the manifest lies where the manifest says that there are some: what
  // it calls freed, recovery has left out.
  void check_group(const recovery::FoundGroup& group) {
    if (group.header.sequence >= manifest_.group()) return;
    const log::FileId id = group.file->id;
    const auto left_at = manifest_.end_of(id);
    const bool behind_end = left_at && group.offset + group.length > *left_at;
    if (!behind_end || !told_.insert(id).second) return;
    report(id, "this log file has groups behind where it ends by the manifest");
  }

  const DryVolume& volume_;
  const log::Manifest& manifest_;
  const std::function<void(Finding)>& add_;
  std::set<log::FileId> told_;
};

}  // namespace

void check_manifest(const DryVolume& volume, const std::function<void(Finding)>& add) {
  ManifestCheck(volume, add).run();
}

}  // namespace valfs::inspect
