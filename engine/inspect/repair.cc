#include "engine/inspect/repair.h"

#include <algorithm>

#include "engine/base/crc32c.h"
#include "engine/recovery/quarantine.h"

namespace valfs::inspect {
namespace {

// DATA/quarantine/<stamp>/, made when something first goes there.
class Quarantine {
 public:
  Quarantine(storage::Storage& storage, const std::string& stamp)
      : storage_(storage), stamp_(stamp), directory_("quarantine/" + stamp) {}

  // The whole file goes.
  Status move(const std::string& path, const std::string& why) {
    VALFS_TRY(open());
    VALFS_ASSIGN(const std::string target, recovery::set_aside(storage_, stamp_, path));
    return note(path, target, why);
  }

  // A copy of bytes [begin, end) is kept; they are about to be written over.
  Status keep(const std::string& path, uint64_t begin, uint64_t end, const std::string& why) {
    VALFS_TRY(open());
    VALFS_ASSIGN(auto from, storage_.open(path, storage::OpenMode::kRead));
    bool unreadable = false;
    const auto bytes = recovery::read_stretch(*from, begin, end, unreadable);
    const std::string target = recovery::quarantine_path(stamp_, path);
    VALFS_ASSIGN(auto to, storage_.open(target, storage::OpenMode::kCreate));
    VALFS_TRY(to->write(0, bytes));
    VALFS_TRY(to->sync());
    VALFS_TRY(storage_.sync_directory(directory_));
    return note(path + " (bytes " + std::to_string(begin) + " to " + std::to_string(end) + ")",
                target, why);
  }

 private:
  Status open() {
    if (report_) return {};
    VALFS_TRY(recovery::make_quarantine(storage_, stamp_));
    VALFS_ASSIGN(report_, storage_.open(directory_ + "/report", storage::OpenMode::kCreate));
    return {};
  }

  Status note(const std::string& what, const std::string& target, const std::string& why) {
    const std::string line = target + " was " + what + ": " + why + "\n";
    VALFS_TRY(report_->write(report_end_, std::as_bytes(std::span(line))));
    report_end_ += line.size();
    VALFS_TRY(report_->sync());
    return storage_.sync_directory(directory_);
  }

  storage::Storage& storage_;
  const std::string stamp_;
  const std::string directory_;
  std::shared_ptr<storage::File> report_;
  uint64_t report_end_ = 0;
};

Status mend_superblock(storage::Storage& storage, const Diagnosis& diagnosis,
                       Quarantine& quarantine, const Acted& acted) {
  if (!diagnosis.superblock_bad) return {};
  const bool there = storage.open(log::kSuperblockPath, storage::OpenMode::kRead).has_value();
  if (there) {
    VALFS_TRY(quarantine.keep(log::kSuperblockPath, 0, log::kSuperblockCopies * log::kBlock,
                              "a copy of the superblock is damaged"));
  }
  // As a file of its own that takes the place of the old one: a good copy is never written over.
  log::Superblock superblock = *diagnosis.superblock;
  VALFS_TRY(log::create_superblock(storage, superblock));
  acted(diagnosis.superblock_lost ? "the superblock was rebuilt from the log"
                                  : "all copies of the superblock were written from a good one",
        log::kSuperblockPath);
  return {};
}

Status mend_header(storage::Storage& storage, const log::VolumeId& volume,
                   const Diagnosis::BadHeader& bad, Quarantine& quarantine, const Acted& acted) {
  const std::string path = log::log_file_path(bad.id);
  VALFS_TRY(quarantine.keep(path, 0, log::kBlock, "the header of the log file is damaged"));
  log::LogFileHeader header;
  header.epoch = bad.epoch;
  header.volume = volume;
  header.file = bad.id;
  header.size = bad.size;
  header.crc = crc32c(log::bytes_of(header).first(offsetof(log::LogFileHeader, crc)));
  std::vector<std::byte> block(log::kBlock);
  std::copy_n(log::bytes_of(header).begin(), sizeof header, block.begin());
  VALFS_ASSIGN(auto file, storage.open(path, storage::OpenMode::kReadWrite));
  VALFS_TRY(file->write(0, block));
  VALFS_TRY(file->sync());
  acted("the header of the log file was written anew", path);
  return {};
}

// Without its footer a log file is read in full, which is what a wrong one comes to as well.
Status drop_footer(storage::Storage& storage, const Diagnosis::BadFooter& bad,
                   Quarantine& quarantine, const Acted& acted) {
  VALFS_ASSIGN(auto file, storage.open(bad.path, storage::OpenMode::kReadWrite));
  VALFS_ASSIGN(const auto info, file->info());
  VALFS_TRY(quarantine.keep(bad.path, bad.begin, info.size, "the footer of the log file is wrong"));
  VALFS_TRY(file->resize(bad.begin));
  VALFS_TRY(file->sync());
  acted("the footer of the log file was taken away", bad.path);
  return {};
}

}  // namespace

Status repair_files(storage::Storage& storage, const Diagnosis& diagnosis, const std::string& stamp,
                    const Acted& acted) {
  Quarantine quarantine(storage, stamp);
  VALFS_TRY(mend_superblock(storage, diagnosis, quarantine, acted));
  for (const Diagnosis::BadHeader& bad : diagnosis.headers) {
    VALFS_TRY(mend_header(storage, diagnosis.superblock->volume, bad, quarantine, acted));
  }
  for (const Diagnosis::BadFooter& bad : diagnosis.footers) {
    VALFS_TRY(drop_footer(storage, bad, quarantine, acted));
  }
  const auto move = [&](const std::vector<std::string>& paths, const char* why) -> Status {
    for (const std::string& path : paths) {
      VALFS_TRY(quarantine.move(path, why));
      acted(std::string("moved to quarantine/") + stamp + ": " + why, path);
    }
    return {};
  };
  VALFS_TRY(move(diagnosis.checkpoints, "the checkpoint is damaged"));
  VALFS_TRY(move(diagnosis.unreadable_logs, "no log file of this volume by its contents"));
  return move(diagnosis.strays, "nothing in the volume leads to it");
}

}  // namespace valfs::inspect
