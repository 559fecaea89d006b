// Works out, before the store is locked, in which form runs of bytes are copied: compressing a
// value takes as long as writing it.
//
// A form is for one run of one record. If the run has been cut meanwhile there is none for what is
// left of it, and the cleaner comes back.
#pragma once

#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "engine/index/index.h"
#include "engine/log/group.h"

namespace valfs::cleaner {

class Packer {
 public:
  struct Form {
    uint8_t flags = 0;  // of compression, for the copy
    std::vector<std::byte> body;
    std::span<const std::byte> payload;
    std::vector<std::byte> bytes;  // of the payload, unless it is the record's own
    bool damaged = false;          // frames that cannot be expanded: there is no copy
    uint64_t raw = 0;              // newly compressed: so many bytes before
  };
  struct Run {
    log::Position position;
    index::Extent extent;
    const log::GroupContents::Entry* entry = nullptr;
  };

  explicit Packer(Compression compression) : compression_(compression) {}

  // The copy of a run, but for its payload and its body.
  static log::Record copy_of(const log::Record& record, const index::Extent& extent);
  // False: it is copied as it lies there.
  bool needs_form(const log::Record& record, const index::Extent& extent) const;
  const Form* find(log::Position position, const index::Extent& extent) const;
  // Works out those that are missing. `runs` point into the group that is being copied.
  void prepare(std::span<const Run> runs);
  // True if there is a compressed one.
  bool any_compressed() const { return any_compressed_; }
  // Most bytes that a copy out of this record takes, as far as is known; at least `otherwise`.
  uint64_t largest(log::Position position, uint64_t otherwise) const;

 private:
  using Key = std::tuple<uint64_t, uint64_t, uint64_t>;  // position, where in the payload, length
  static Key key_of(log::Position position, const index::Extent& extent) {
    return {position.packed, extent.in_payload(), extent.length};
  }
  void work_out(const Run& run, Form& form) const;
  void compress(const log::Record& copy, const Run& run, Compression how, Form& form) const;

  const Compression compression_;
  std::map<Key, Form> forms_;
  std::map<uint64_t, uint64_t> largest_;  // by position
  bool any_compressed_ = false;
};

}  // namespace valfs::cleaner
