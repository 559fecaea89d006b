#include "fs/tool_output.h"

#include <time.h>
#include <unistd.h>

#include <cstdio>

namespace valfs::fs {
namespace {

constexpr uint64_t kWorthALine = 256 << 20;  // bytes

// The length of the UTF-8 sequence at the start of `text`, or 0 (RFC 3629, no surrogates).
size_t utf8_length(std::string_view text) {
  const auto at = [&](size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const auto tail = [&](size_t i) { return (at(i) & 0xc0) == 0x80; };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const bool bad = (first == 0xe0 && at(1) < 0xa0) || (first == 0xed && at(1) > 0x9f);
    return !bad && tail(1) && tail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const bool bad = (first == 0xf0 && at(1) < 0x90) || (first == 0xf4 && at(1) > 0x8f);
    return !bad && tail(1) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

// Calls `good` for each whole character and `bad` for each byte that belongs to none.
template <class Good, class Bad>
void walk_utf8(std::string_view text, Good good, Bad bad) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) {
      bad(static_cast<unsigned char>(text[0]));
    } else {
      good(text.substr(0, length));
    }
    text.remove_prefix(std::max<size_t>(length, 1));
  }
}

}  // namespace

bool is_utf8(std::string_view text) {
  bool good = true;
  walk_utf8(
      text, [](std::string_view) {}, [&](unsigned char) { good = false; });
  return good;
}

void put_text(OrderedJson& json, const std::string& key, std::string_view text) {
  std::string shown;
  bool exact = true;
  walk_utf8(
      text, [&](std::string_view character) { shown += character; },
      [&](unsigned char) {
        shown += "\xef\xbf\xbd";
        exact = false;
      });
  json[key] = shown;
  if (!exact) json[key + "_hex"] = hex(std::as_bytes(std::span(text)));
}

std::string printable(std::string_view text) {
  std::string shown;
  const auto escape = [&](unsigned char byte) {
    char digits[8];
    std::snprintf(digits, sizeof digits, "\\x%02x", byte);
    shown += digits;
  };
  walk_utf8(
      text,
      [&](std::string_view character) {
        const auto first = static_cast<unsigned char>(character[0]);
        if (first == '\\') {
          shown += "\\\\";
        } else if (first < 0x20 || first == 0x7f) {
          escape(first);
        } else {
          shown += character;
        }
      },
      escape);
  return shown;
}

std::string hex(std::span<const std::byte> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::byte byte : bytes) {
    text += kDigits[static_cast<unsigned>(byte) >> 4];
    text += kDigits[static_cast<unsigned>(byte) & 15];
  }
  return text;
}

std::string base64(std::span<const std::byte> bytes) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    unsigned bits = 0;
    const size_t count = std::min<size_t>(3, bytes.size() - at);
    for (size_t i = 0; i < 3; i++) {
      bits = bits << 8 | (i < count ? static_cast<unsigned>(bytes[at + i]) : 0);
    }
    for (size_t i = 0; i < 4; i++) {
      text += i <= count ? kDigits[bits >> (18 - 6 * i) & 63] : '=';
    }
  }
  return text;
}

std::string iso_time(Time time) {
  const time_t seconds = time.seconds;
  struct tm parts {};
  if (::gmtime_r(&seconds, &parts) == nullptr) return std::to_string(time.seconds) + "s";
  char text[64];
  std::snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%09uZ", parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                time.nanoseconds);
  return text;
}

OrderedJson json_of(const inspect::Finding& finding) {
  OrderedJson json;
  json["severity"] = finding.severity == inspect::Finding::Severity::kError ? "error" : "note";
  json["kind"] = finding.kind;
  put_text(json, "what", finding.what);
  if (!finding.path.empty()) put_text(json, "path", finding.path);
  if (finding.inode != 0) json["inode"] = finding.inode;
  if (!finding.file.empty()) put_text(json, "file", finding.file);
  if (finding.offset) json["offset"] = *finding.offset;
  if (finding.length) json["length"] = *finding.length;
  json["repairable"] = finding.repairable;
  if (!finding.next.empty()) put_text(json, "next", finding.next);
  return json;
}

std::string text_of(const inspect::Finding& finding) {
  std::string where;
  if (!finding.path.empty()) where = printable(finding.path);
  if (finding.inode != 0) {
    where += (where.empty() ? "inode " : " (inode ") + std::to_string(finding.inode) +
             (where.empty() ? "" : ")");
  }
  if (!finding.file.empty()) where += (where.empty() ? "" : ", ") + printable(finding.file);
  if (finding.offset) where += " at " + std::to_string(*finding.offset);
  std::string text = finding.severity == inspect::Finding::Severity::kError ? "error: " : "note: ";
  if (!where.empty()) text += where + ": ";
  text += printable(finding.what) + ".";
  if (!finding.next.empty()) text += " Next: " + printable(finding.next) + ".";
  return text;
}

std::string text_of(const inspect::ScrubProgress& progress) {
  std::string text = "scrub: ";
  if (progress.running) {
    text += "running, " + std::to_string(progress.bytes_done) + " of " +
            std::to_string(progress.bytes_total) + " bytes checked, ";
  } else {
    text += (progress.stopped ? "stopped, " : "done, ") + std::to_string(progress.bytes_done) +
            " bytes checked, ";
  }
  text += std::to_string(progress.damaged) + " damaged";
  if (progress.dead_damage > 0) {
    text +=
        ", " + std::to_string(progress.dead_damage) + " damaged places without anything current";
  }
  text += "\n";
  for (const inspect::Finding& finding : progress.findings) text += text_of(finding) + "\n";
  if (progress.damaged > progress.findings.size()) {
    text += "and " + std::to_string(progress.damaged - progress.findings.size()) + " more\n";
  }
  return text;
}

ProgressBar::ProgressBar(bool quiet) : quiet_(quiet), terminal_(::isatty(STDERR_FILENO) != 0) {}

void ProgressBar::show(const inspect::Progress& progress) {
  if (quiet_ || progress.total == 0) return;
  const uint64_t percent = std::min<uint64_t>(100, progress.done * 100 / progress.total);
  if (terminal_) {
    constexpr uint64_t kWidth = 40;
    const auto full = static_cast<size_t>(percent * kWidth / 100);
    std::fprintf(stderr, "\r\033[K%-10s [%s%s] %3u %%", progress.phase.c_str(),
                 std::string(full, '#').c_str(), std::string(kWidth - full, ' ').c_str(),
                 static_cast<unsigned>(percent));
    std::fflush(stderr);
    shown_ = true;
    return;
  }
  if (progress.total < kWorthALine) return;
  if (progress.phase != phase_) {
    phase_ = progress.phase;
    quarter_ = 0;
  }
  if (percent / 25 <= quarter_ && quarter_ > 0) return;
  if (percent / 25 == quarter_) return;
  quarter_ = percent / 25;
  std::fprintf(stderr, "valfs: %s: %u %%\n", progress.phase.c_str(),
               static_cast<unsigned>(quarter_ * 25));
}

void ProgressBar::clear() {
  if (!shown_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace valfs::fs
