#include "engine/inspect/compare.h"

#include <algorithm>

#include "engine/log/payload_reader.h"

namespace valfs::inspect {
namespace {

using index::Extent;
using index::Inode;

// Runs of bytes that a value has; holes lie between them.
std::vector<std::pair<uint64_t, uint64_t>> runs_of(const Inode& inode) {
  std::vector<std::pair<uint64_t, uint64_t>> runs;
  for (const Extent& extent : inode.extents().all()) {
    if (!runs.empty() && runs.back().second == extent.offset) {
      runs.back().second = extent.end();
    } else {
      runs.emplace_back(extent.offset, extent.end());
    }
  }
  return runs;
}

bool same_places(const Inode& a, const Inode& b) {
  const auto one = a.extents().all();
  const auto other = b.extents().all();
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](const Extent& x, const Extent& y) {
                      return x.offset == y.offset && x.length == y.length && x.lead == y.lead &&
                             x.record == y.record;
                    });
}

// Bytes that cannot be read are left out: damage is reported elsewhere.
Result<std::vector<std::byte>> read_range(const DryVolume& volume, const Inode& inode,
                                          uint64_t begin, uint64_t end) {
  std::vector<std::byte> bytes(end - begin);
  for (const Extent& extent : inode.extents().overlapping(begin, end)) {
    const log::LogFileRef file = volume.files.find(extent.record.file());
    if (!file) return fail(EIO, "missing log file");
    const uint64_t from = std::max(begin, extent.offset);
    const uint64_t to = std::min(end, extent.end());
    VALFS_TRY(log::read_payload(*file, volume.files.salt(*file), extent, from - extent.offset,
                                std::span(bytes).subspan(from - begin, to - from)));
  }
  return bytes;
}

bool same_bytes(const DryVolume& one, const Inode& a, const DryVolume& other, const Inode& b) {
  if (same_places(a, b)) return true;
  constexpr uint64_t kPiece = 1 << 20;
  for (const auto& [begin, end] : runs_of(a)) {
    for (uint64_t at = begin; at < end; at += kPiece) {
      const auto x = read_range(one, a, at, std::min(at + kPiece, end));
      const auto y = read_range(other, b, at, std::min(at + kPiece, end));
      if (x && y && *x != *y) return false;
    }
  }
  return true;
}

std::string difference(const DryVolume& one, const Inode& a, const DryVolume& other,
                       const Inode& b) {
  // Chunk sums are a value without attributes worth comparing.
  if (a.sums != b.sums) return "one has chunk sums where the other has a file";
  if (!a.sums && !(a.attributes == b.attributes)) return "its attributes differ";
  if (runs_of(a) != runs_of(b)) return "they have bytes in different places of the value";
  if (!same_bytes(one, a, other, b)) return "the bytes of the value differ";
  return "";
}

}  // namespace

void compare(const DryVolume& one, const DryVolume& other,
             const std::function<void(log::ObjectId, const std::string&)>& differs) {
  one.index->for_each_inode([&](const Inode& a) {
    const auto b = other.index->find(a.id);
    if (b == nullptr) return differs(a.id, "only the checkpoint has this object");
    const std::string text = difference(one, a, other, *b);
    if (!text.empty()) differs(a.id, text);
  });
  other.index->for_each_inode([&](const Inode& b) {
    if (one.index->find(b.id) == nullptr) differs(b.id, "only the log has this object");
  });
  const auto compare_names = [&](const index::Index& from, const index::Index& to,
                                 const char* what) {
    from.for_each_name([&](const index::Name& name) {
      const auto known = to.find(name.parent, name.name);
      if (known == nullptr || known->inode != name.inode || known->cookie != name.cookie) {
        differs(name.inode, what);
      }
    });
  };
  compare_names(*one.index, *other.index, "a name that the checkpoint has, the log has not");
  compare_names(*other.index, *one.index, "a name that the log has, the checkpoint has not");
}

}  // namespace valfs::inspect
