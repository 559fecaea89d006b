// What a check of a volume has found, one thing at a time, and how far it is.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace valfs::inspect {

struct Finding {
  enum class Severity {
    kNote,   // nothing wrong: what a crash leaves, what the next mount tidies up by itself
    kError,  // something is not as it should be
  };
  Severity severity = Severity::kError;
  bool repairable = false;         // by `valfs fsck --repair`
  std::string kind;                // a word for programs: "superblock", "payload", "blob" …
  std::string what;                // a sentence without its full stop
  std::string next;                // what to do; "" if there is nothing to do
  std::string path;                // in the volume, raw bytes; "" if it is about no file
  uint64_t inode = 0;              // 0: none
  std::string file;                // below the data directory; "": none
  std::optional<uint64_t> offset;  // bytes, in `file`
  std::optional<uint64_t> length;
};

struct Progress {
  std::string phase;  // "log", "checkpoint", "blobs" …
  uint64_t done = 0;  // bytes
  uint64_t total = 0;
};

struct Observer {
  std::function<void(const Finding&)> found = [](const Finding&) {};
  std::function<void(const Progress&)> progress = [](const Progress&) {};
};

}  // namespace valfs::inspect
