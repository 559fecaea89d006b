// What an index points to, and recovery has not found whole.
#include <algorithm>

#include "engine/inspect/check.h"
#include "engine/log/payload_reader.h"

namespace valfs::inspect {
namespace {

constexpr const char* kNextValue =
    "write the value anew or delete it; `valfs salvage` writes out what is left of it";

std::string range_text(uint64_t begin, uint64_t end) {
  return "bytes " + std::to_string(begin) + " to " + std::to_string(end);
}

class ValueCheck {
 public:
  ValueCheck(const DryVolume& volume, const recovery::Verdict& log,
             const std::function<void(Finding)>& add)
      : volume_(volume), add_(add) {
    for (const recovery::FoundGroup& group : log.kept) {
      if (!group.whole) continue;
      good_.push_back({group.file->id, group.offset, group.offset + group.length});
    }
    std::sort(good_.begin(), good_.end());
  }

  void run(Diagnosis& diagnosis) {
    volume_.index->for_each_inode([&](const index::Inode& inode) {
      check_value(inode);
      const bool faded =
          inode.base && !is_good(inode.base) && !check_record(inode.id, inode.base, "attributes");
      if (faded) diagnosis.faded_inodes.push_back(inode.id);
    });
    volume_.index->for_each_name([&](const index::Name& name) {
      const bool faded =
          name.record && !is_good(name.record) && !check_record(name.inode, name.record, "name");
      if (faded) diagnosis.faded_names.emplace_back(name.parent, name.name);
    });
  }

 private:
  struct GoodGroup {
    log::FileId file;
    uint64_t begin;
    uint64_t end;
    friend auto operator<=>(const GoodGroup&, const GoodGroup&) = default;
  };

  // True if the record lies in a group that was read and found whole.
  bool is_good(log::Position record) const {
    const auto behind =
        std::upper_bound(good_.begin(), good_.end(), record, [](log::Position p, const auto& g) {
          return p.file() != g.file ? p.file() < g.file : p.offset() < g.begin;
        });
    if (behind == good_.begin()) return false;
    const GoodGroup& group = *std::prev(behind);
    return group.file == record.file() && record.offset() < group.end;
  }

  void check_value(const index::Inode& inode) {
    if (inode.damaged) {
      return report(inode, "a record of this value is lost: all of it answers EIO", {});
    }
    for (const index::Extent& extent : inode.extents().all()) {
      // Checksums do not tell that frames can be expanded.
      if (!is_good(extent.record) || extent.compressed != 0) check_extent(inode, extent);
    }
  }

  void report(const index::Inode& inode, std::string what, log::Position record) {
    Finding finding;
    finding.kind = inode.sums ? "blob-sums" : "value";
    finding.inode = inode.id;
    finding.what = std::move(what);
    finding.next = kNextValue;
    if (record) locate(finding, record);
    add_(std::move(finding));
  }

  // Chunk by chunk, so that what is said to be lost is lost.
  void check_extent(const index::Inode& inode, const index::Extent& extent) {
    const log::LogFileRef file = volume_.files.find(extent.record.file());
    if (!file) {
      return report(inode,
                    range_text(extent.offset, extent.end()) + " were in a log file that is missing",
                    extent.record);
    }
    std::optional<uint64_t> bad_from;
    uint64_t skip = 0;
    while (skip < extent.length) {
      const uint64_t in_payload = extent.in_payload() + skip;
      const uint64_t length =
          std::min<uint64_t>(extent.length - skip, extent.step() - in_payload % extent.step());
      std::vector<std::byte> bytes(length);
      const bool good =
          log::read_payload(*file, volume_.files.salt(*file), extent, skip, bytes).has_value();
      if (!good && !bad_from) bad_from = extent.offset + skip;
      if (good && bad_from) {
        report(inode, range_text(*bad_from, extent.offset + skip) + " are damaged", extent.record);
        bad_from.reset();
      }
      skip += length;
    }
    if (bad_from) {
      report(inode, range_text(*bad_from, extent.end()) + " are damaged", extent.record);
    }
  }

  bool check_record(log::ObjectId id, log::Position record, const char* what) {
    const log::LogFileRef file = volume_.files.find(record.file());
    // It went with a missing log file, whose acceptance writes what is known of it anew.
    if (!file) return true;
    LogReader reader;
    reader.add(file, volume_.files.salt(*file), log::kFirstGroupOffset, file->size);
    if (reader.read_record(record)) return true;
    Finding finding;
    finding.kind = "metadata";
    finding.inode = id;
    finding.what = std::string("the record that holds its ") + what +
                   " is damaged; only the checkpoint still knows it";
    finding.next = "let `valfs fsck --repair` write it anew";
    finding.repairable = true;
    locate(finding, record);
    add_(std::move(finding));
    return false;
  }

  const DryVolume& volume_;
  const std::function<void(Finding)>& add_;
  std::vector<GoodGroup> good_;
};

}  // namespace

void check_values(const DryVolume& volume, const recovery::Verdict& log, Diagnosis& diagnosis,
                  const std::function<void(Finding)>& add) {
  ValueCheck(volume, log, add).run(diagnosis);
}

}  // namespace valfs::inspect
