#include "engine/log/footer.h"

#include <algorithm>
#include <cstring>

namespace valfs::log {
namespace {

struct BlockHeader {
  static constexpr uint32_t kMagic = 0x544f4656;  // "VFOT"
  uint32_t crc = 0;  // of everything behind it, salted with the block's place
  uint32_t magic = kMagic;
  uint32_t number = 0;  // 0 … count - 1
  uint32_t count = 0;   // blocks of this footer
  uint64_t end = 0;     // where the footer begins
  uint32_t groups = 0;
  uint32_t gaps = 0;
};
static_assert(sizeof(BlockHeader) == 32 && std::is_trivially_copyable_v<BlockHeader>);

constexpr size_t kCrcBytes = sizeof(uint32_t);
constexpr uint64_t kRoom = kBlock - sizeof(BlockHeader);

std::optional<BlockHeader> decode_block(std::span<const std::byte> block, const Salt& salt,
                                        uint64_t offset) {
  if (block.size() < kBlock) return std::nullopt;
  BlockHeader header;
  std::memcpy(&header, block.data(), sizeof header);
  if (header.magic != BlockHeader::kMagic) return std::nullopt;
  const auto checked = block.subspan(kCrcBytes, kBlock - kCrcBytes);
  if (salted_crc(salt, offset, checked) != header.crc) return std::nullopt;
  return header;
}

// The tables, one behind the other.
std::vector<std::byte> tables_of(const Footer& footer) {
  const auto groups = std::as_bytes(std::span(footer.groups));
  const auto gaps = std::as_bytes(std::span(footer.gaps));
  std::vector<std::byte> bytes(groups.begin(), groups.end());
  bytes.insert(bytes.end(), gaps.begin(), gaps.end());
  return bytes;
}

bool is_plausible(const Footer& footer) {
  uint64_t gaps = 0;
  uint64_t at = 0;
  for (const FooterGroup& group : footer.groups) {
    const uint64_t begin = group.offset * kBlock;
    if (begin < at || group.length == 0) return false;
    at = begin + group.length * kBlock;
    gaps += group.gaps;
  }
  return at <= footer.end && gaps == footer.gaps.size();
}

}  // namespace

std::vector<std::byte> encode_footer(const Footer& footer, const Salt& salt) {
  const std::vector<std::byte> tables = tables_of(footer);
  const uint64_t count = std::max<uint64_t>(1, (tables.size() + kRoom - 1) / kRoom);
  std::vector<std::byte> bytes(count * kBlock);
  for (uint64_t number = 0; number < count; number++) {
    const auto block = std::span(bytes).subspan(number * kBlock, kBlock);
    const uint64_t from = number * kRoom;
    std::copy_n(tables.begin() + static_cast<ptrdiff_t>(from),
                std::min<uint64_t>(kRoom, tables.size() - from),
                block.begin() + sizeof(BlockHeader));
    BlockHeader header;
    header.number = static_cast<uint32_t>(number);
    header.count = static_cast<uint32_t>(count);
    header.end = footer.end;
    header.groups = static_cast<uint32_t>(footer.groups.size());
    header.gaps = static_cast<uint32_t>(footer.gaps.size());
    std::memcpy(block.data(), &header, sizeof header);
    header.crc = salted_crc(salt, footer.end + number * kBlock, block.subspan(kCrcBytes));
    std::memcpy(block.data(), &header.crc, kCrcBytes);
  }
  return bytes;
}

std::optional<Footer> read_footer(storage::File& file, const Salt& salt, uint64_t size) {
  if (size < kFirstGroupOffset + kBlock || size % kBlock != 0) return std::nullopt;
  std::vector<std::byte> block(kBlock);
  const auto got = file.read(size - kBlock, block);
  if (!got || *got < kBlock) return std::nullopt;
  const auto last = decode_block(block, salt, size - kBlock);
  if (!last || last->number + 1 != last->count) return std::nullopt;
  const uint64_t bytes = uint64_t{last->count} * kBlock;
  const uint64_t needed =
      uint64_t{last->groups} * sizeof(FooterGroup) + uint64_t{last->gaps} * sizeof(Gap);
  if (bytes > size || last->end != size - bytes || needed > last->count * kRoom) {
    return std::nullopt;
  }
  std::vector<std::byte> image(bytes);
  const auto all = file.read(last->end, image);
  if (!all || *all < bytes) return std::nullopt;
  std::vector<std::byte> tables;
  for (uint32_t number = 0; number < last->count; number++) {
    const auto part = std::span(image).subspan(number * kBlock, kBlock);
    const auto header = decode_block(part, salt, last->end + number * kBlock);
    if (!header || header->number != number || header->count != last->count) return std::nullopt;
    tables.insert(tables.end(), part.begin() + sizeof(BlockHeader), part.end());
  }
  Footer footer;
  footer.end = last->end;
  footer.groups.resize(last->groups);
  footer.gaps.resize(last->gaps);
  const size_t groups_bytes = footer.groups.size() * sizeof(FooterGroup);
  if (last->groups > 0) std::memcpy(footer.groups.data(), tables.data(), groups_bytes);
  if (last->gaps > 0) {
    std::memcpy(footer.gaps.data(), tables.data() + groups_bytes, footer.gaps.size() * sizeof(Gap));
  }
  if (!is_plausible(footer)) return std::nullopt;
  return footer;
}

bool is_footer_block(std::span<const std::byte> block, const Salt& salt, uint64_t offset) {
  return decode_block(block, salt, offset).has_value();
}

bool looks_like_footer(std::span<const std::byte> block) {
  BlockHeader header;
  if (block.size() < sizeof header) return false;
  std::memcpy(&header, block.data(), sizeof header);
  return header.magic == BlockHeader::kMagic;
}

}  // namespace valfs::log
