// The pages of a checkpoint: a stream of fixed structures and strings, cut into pages with CRCs.
#pragma once

#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/base/varint.h"
#include "engine/log/format.h"

namespace valfs::checkpoint {

enum class PageKind : uint32_t { kHeader = 1, kFiles = 4, kEnd, kInodes = 8 };

struct PageHeader {
  static constexpr uint32_t kMagic = 0x47504b43;  // "CKPG"
  uint32_t magic = kMagic;
  PageKind kind{};
  uint32_t number = 0;  // 0, 1, 2 …: none may be missing
  uint32_t length = 0;  // bytes behind this header
  uint64_t generation = 0;
  uint32_t reserved = 0;
  uint32_t crc = 0;  // of the header before it and the bytes behind it
};
static_assert(sizeof(PageHeader) == 32);

// Writes entries; an entry never straddles two pages.
class PageWriter {
 public:
  PageWriter(storage::File& file, uint64_t generation) : file_(file), generation_(generation) {}

  // Ends the page if it is full or of another kind. True if the entry begins a page.
  Result<bool> begin_entry(PageKind kind);
  void number(uint64_t value) {
    std::array<std::byte, kLongestVarint> bytes;
    page_.insert(page_.end(), bytes.begin(), put_varint(bytes.data(), value));
  }
  void difference(uint64_t value, uint64_t from) { number(valfs::difference(value, from)); }
  template <class T>
  void put(const T& value) {
    const auto bytes = log::bytes_of(value);
    page_.insert(page_.end(), bytes.begin(), bytes.end());
  }
  void put(std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text));
    page_.insert(page_.end(), bytes.begin(), bytes.end());
  }
  Status finish();  // writes the last page
  uint64_t bytes_written() const { return offset_; }

 private:
  Status write_page();

  storage::File& file_;
  const uint64_t generation_;
  PageKind kind_ = PageKind::kHeader;
  uint32_t number_ = 0;
  uint64_t offset_ = 0;
  std::vector<std::byte> page_;
};

// The bytes of one page, taken off one after the other. Running out of bytes sets failed().
class PageReader {
 public:
  explicit PageReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  bool at_end() const { return bytes_.empty() || failed_; }
  bool failed() const { return failed_; }
  template <class T>
  T take() {
    T value{};
    if (bytes_.size() < sizeof value) {
      failed_ = true;
      return value;
    }
    std::memcpy(static_cast<void*>(&value), bytes_.data(), sizeof value);
    bytes_ = bytes_.subspan(sizeof value);
    return value;
  }
  uint64_t number();
  uint64_t after(uint64_t from) { return valfs::after(from, number()); }
  std::string_view take_text(size_t length);

 private:
  std::span<const std::byte> bytes_;
  bool failed_ = false;
};

// Reads page after page, checked.
class PageSource {
 public:
  PageSource(storage::File& file, uint64_t generation) : file_(file), generation_(generation) {}
  // The next page's kind and bytes (good until the next call); EINVAL if it is damaged or missing.
  Result<PageKind> next(std::span<const std::byte>& bytes);

 private:
  storage::File& file_;
  const uint64_t generation_;
  uint32_t number_ = 0;
  uint64_t offset_ = 0;
  std::vector<std::byte> page_;
};

// What the end page of a file of `size` bytes holds, before the other pages are read. Nothing where
// they will show that something is wrong with the file.
std::optional<uint64_t> read_end_page(storage::File& file, uint64_t size, uint64_t generation);

}  // namespace valfs::checkpoint
