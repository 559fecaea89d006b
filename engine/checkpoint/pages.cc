#include "engine/checkpoint/pages.h"

#include <algorithm>

#include "engine/base/crc32c.h"
#include "engine/base/planted.h"

namespace valfs::checkpoint {
namespace {

constexpr size_t kPageBytes = 256 * 1024;      // a page is ended once it has so many
constexpr uint32_t kLargestPage = 256u << 20;  // an inode with very many extents

uint32_t page_crc(const PageHeader& header, std::span<const std::byte> bytes) {
  return crc32c(bytes, crc32c(log::bytes_of(header).first(offsetof(PageHeader, crc))));
}

}  // namespace

Result<bool> PageWriter::begin_entry(PageKind kind) {
  if (kind != kind_ || page_.size() >= kPageBytes) VALFS_TRY(write_page());
  kind_ = kind;
  return page_.empty();
}

Status PageWriter::finish() {
  return write_page();
}

Status PageWriter::write_page() {
  if (page_.empty()) return {};
  PageHeader header;
  header.kind = kind_;
  header.number = number_++;
  header.length = static_cast<uint32_t>(page_.size());
  header.generation = generation_;
  header.crc = page_crc(header, page_);
  const auto head = log::bytes_of(header);
  page_.insert(page_.begin(), head.begin(), head.end());
  VALFS_TRY(file_.write(offset_, page_));
  offset_ += page_.size();
  page_.clear();
  return {};
}

uint64_t PageReader::number() {
  uint64_t value = 0;
  for (size_t i = 0; i < std::min(bytes_.size(), kLongestVarint); i++) {
    const auto byte = static_cast<uint64_t>(bytes_[i]);
    value |= (byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      bytes_ = bytes_.subspan(i + 1);
      return value;
    }
  }
  failed_ = true;
  return 0;
}

std::string_view PageReader::take_text(size_t length) {
  if (bytes_.size() < length) {
    failed_ = true;
    return {};
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data()), length);
  bytes_ = bytes_.subspan(length);
  return text;
}

Result<PageKind> PageSource::next(std::span<const std::byte>& bytes) {
  const auto damaged = [this] {
    return fail(EINVAL, "checkpoint: damaged page " + std::to_string(number_));
  };
  PageHeader header;
  const auto into = std::as_writable_bytes(std::span(&header, 1));
  VALFS_ASSIGN(const size_t got, file_.read(offset_, into));
  if (got < sizeof header || header.magic != PageHeader::kMagic || header.number != number_ ||
      header.generation != generation_ || header.length > kLargestPage) {
    return damaged();
  }
  page_.resize(header.length);
  VALFS_ASSIGN(const size_t length, file_.read(offset_ + sizeof header, page_));
  if (length < header.length) return damaged();
  if (page_crc(header, page_) != header.crc && !planted(Bug::kCheckpointUnchecked)) {
    return damaged();
  }
  offset_ += sizeof header + header.length;
  number_++;
  bytes = page_;
  return header.kind;
}

std::optional<uint64_t> read_end_page(storage::File& file, uint64_t size, uint64_t generation) {
  struct {
    PageHeader header;
    uint64_t content = 0;
  } page;
  static_assert(sizeof page == sizeof(PageHeader) + sizeof page.content);
  if (size < sizeof page) return std::nullopt;
  const auto bytes = std::as_writable_bytes(std::span(&page, 1));
  const auto got = file.read(size - sizeof page, bytes);
  const bool there = got && *got == sizeof page && page.header.magic == PageHeader::kMagic &&
                     page.header.kind == PageKind::kEnd && page.header.generation == generation &&
                     page.header.length == sizeof page.content;
  if (!there || page_crc(page.header, bytes.subspan(sizeof(PageHeader))) != page.header.crc) {
    return std::nullopt;
  }
  return page.content;
}

}  // namespace valfs::checkpoint
