// How the tools talk: JSON that keeps every byte of a name, times, progress.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/base/time.h"
#include "engine/inspect/finding.h"
#include "engine/inspect/scrub.h"
#include "fs/json.h"

namespace valfs::fs {

bool is_utf8(std::string_view text);
// Sets `key` to the text. Where it is not UTF-8, bytes that are not appear as U+FFFD there, and
// `key`_hex has all of them exactly.
void put_text(OrderedJson& json, const std::string& key, std::string_view text);
// For people: control characters and what is not UTF-8 as \xNN, '\' as \\.
std::string printable(std::string_view text);

std::string hex(std::span<const std::byte> bytes);
std::string base64(std::span<const std::byte> bytes);
// "2026-01-31T12:00:00.000000042Z"
std::string iso_time(Time time);

OrderedJson json_of(const inspect::Finding& finding);
// "error: a/b (inode 17), wal/00/00/00000001 at 8192: ... Next: ..."
std::string text_of(const inspect::Finding& finding);

// "scrub: done, ..." or "scrub: running, ...", and a line for each finding.
std::string text_of(const inspect::ScrubProgress& progress);

// A bar on a terminal; elsewhere a line for every quarter of work that is worth it.
class ProgressBar {
 public:
  explicit ProgressBar(bool quiet);
  ~ProgressBar() { clear(); }
  void show(const inspect::Progress& progress);
  void clear();  // before something else is printed

 private:
  const bool quiet_;
  const bool terminal_;
  bool shown_ = false;
  std::string phase_;
  uint64_t quarter_ = 0;
};

}  // namespace valfs::fs
