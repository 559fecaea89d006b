#include "engine/cleaner/packer.h"

#include <algorithm>

#include "engine/base/check.h"

namespace valfs::cleaner {

using log::Record;

namespace {

constexpr size_t kLongestName = 255;

}  // namespace

Record Packer::copy_of(const Record& record, const index::Extent& extent) {
  Record copy = record;
  copy.flags = static_cast<uint8_t>((record.flags | log::kCopy) & ~log::kCompressed);
  copy.a = extent.offset;
  if (copy.name.size() > kLongestName) copy.name = {};
  return copy;
}

bool Packer::needs_form(const Record& record, const index::Extent& extent) const {
  if (log::is_compressed(record)) return true;
  // Sums of chunks are noise.
  constexpr uint8_t kHopeless = log::kIncompressible | log::kSums;
  return compression_ != Compression::kNone && (record.flags & kHopeless) == 0 &&
         extent.length >= log::kLeastCompressed;
}

const Packer::Form* Packer::find(log::Position position, const index::Extent& extent) const {
  const auto found = forms_.find(key_of(position, extent));
  return found == forms_.end() ? nullptr : &found->second;
}

uint64_t Packer::largest(log::Position position, uint64_t otherwise) const {
  const auto found = largest_.find(position.packed);
  return found == largest_.end() ? otherwise : std::max(found->second, otherwise);
}

void Packer::prepare(std::span<const Run> runs) {
  for (const Run& run : runs) {
    const auto [at, fresh] = forms_.try_emplace(key_of(run.position, run.extent));
    if (!fresh) continue;
    Form& form = at->second;
    work_out(run, form);
    if (form.damaged) continue;
    any_compressed_ |= (form.flags & log::kCompressed) != 0;
    Record copy = copy_of(run.entry->found.record, run.extent);
    copy.body = form.body;
    copy.payload = form.payload;
    uint64_t& most = largest_[run.position.packed];
    most = std::max(most, copy.total_length());
  }
}

void Packer::work_out(const Run& run, Form& form) const {
  const Record& record = run.entry->found.record;
  Record copy = copy_of(record, run.extent);
  if (!log::is_compressed(record)) {
    form.payload = record.payload.subspan(run.extent.in_payload(), run.extent.length);
    copy.payload = form.payload;
    return compress(copy, run, compression_, form);
  }
  const auto frames = log::Frames::read(record.body, record.payload.size());
  VALFS_CHECK(frames.has_value());  // else the index would not point here
  if (run.extent.in_payload() == 0 && run.extent.length == frames->raw_length()) {
    copy.body = record.body;
    copy.payload = record.payload;
    form.flags = log::kCompressed;
    form.body = log::body_for_copy(copy, run.position);
    form.payload = record.payload;
    return;
  }
  form.bytes.resize(run.extent.length);
  form.damaged = !frames->expand(record.payload, 0, run.extent.in_payload(), form.bytes);
  if (form.damaged) return;
  form.payload = form.bytes;
  copy.payload = form.payload;
  // It stays compressed, whatever the mount says: what lies in a log file has to fit in another.
  compress(copy, run, compression_ != Compression::kNone ? compression_ : frames->algorithm(),
           form);
}

void Packer::compress(const Record& copy, const Run& run, Compression how, Form& form) const {
  const auto from = log::bytes_of(run.position);
  form.body.assign(from.begin(), from.end());
  if (run.extent.length < log::kLeastCompressed) return;
  Record plain = copy;
  plain.body = form.body;
  auto packed = log::pack(plain, run.position, how);
  if (!packed) {
    form.flags = log::kIncompressible;
    return;
  }
  form.flags = log::kCompressed;
  form.raw = run.extent.length;
  form.body = std::move(packed->body);
  form.bytes = std::move(packed->payload);
  form.payload = form.bytes;
}

}  // namespace valfs::cleaner
