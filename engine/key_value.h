// The store as a flat map from keys to values: the plainest way to use the engine.
//
// A key is 1 … 65,535 bytes, any bytes. Keys are the names in the volume's root directory, so that
// a mount shows them as files; those with '/' or NUL in them, longer than 255 bytes, or called "."
// or ".." cannot be reached there. What else a mount has made in the root (directories, links,
// devices) is no value: EISDIR.
//
// Promises are those of the store (store.h). Each call changes all or nothing, also across a crash:
// a value that is overwritten is the old one or the new one, whole. Readers see one value from
// first byte to last, however many replace it meanwhile. Errors are errnos with a sentence: EINVAL
// for a key that cannot be, ENOENT for one that is not there.
//
// Thread-safe. Only one face changes a volume at a time: no mount serves the same Store meanwhile.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/store.h"

namespace valfs {

class KeyValue {
 public:
  static constexpr size_t kLongestKey = log::kMaxName;
  static constexpr size_t kPiece = 64 * kKiB;

  using Bytes = std::span<const std::byte>;
  // Gives the next bytes of a value, good until the next call; none: the value is complete.
  using Source = std::function<Result<Bytes>()>;
  // Takes the next bytes of a value, good until it returns; an error ends the reading.
  using Sink = std::function<Status(Bytes)>;

  // `store` outlives this.
  explicit KeyValue(Store& store) : store_(store) {}

  // A new key costs three records in one transaction, an overwritten one one or two (five where
  // somebody is reading the old value, or it lies in bin/).
  Status put(std::string_view key, Bytes value);
  // The same with a value that comes in pieces. Up to StoreOptions::blob_threshold bytes are
  // gathered in memory, and stay in the log; longer values go to bin/ piece by piece, and get their
  // name at the end. An error of the source is returned, and leaves no trace.
  Status put_stream(std::string_view key, const Source& source);

  Result<std::vector<std::byte>> get(std::string_view key);
  // As many bytes from `offset` on as there are, up to into.size().
  Result<size_t> get(std::string_view key, uint64_t offset, std::span<std::byte> into);
  // The whole value in pieces of `piece` bytes (the last may be shorter).
  Status get_stream(std::string_view key, const Sink& sink, size_t piece = kPiece);

  Status remove(std::string_view key);
  bool contains(std::string_view key) const;
  Result<uint64_t> size(std::string_view key) const;  // of the value, bytes
  uint64_t count() const;                             // names in the root

  // Every key and the size of its value, in the order in which the keys came to be (one whose value
  // was replaced while it was read, or lay in bin/, counts as new). Stops where `visit` returns
  // false. Holds no lock while it visits: what is there from begin to end comes exactly once,
  // unless it is replaced; what comes or goes meanwhile may be missed.
  void for_each(const std::function<bool(std::string_view key, uint64_t size)>& visit) const;

  // The bytes of all that has returned are with the kernel: they survive kill -9 of this process.
  // Staging slots are memory of the kernel's from the start, so there is nothing left to do; what
  // this reports is whether the log has failed (P8).
  Status flush() const { return store_.failure(); }
  // … and on the disk: they survive power loss.
  Status sync() { return store_.sync(); }
  Result<GcProgress> gc() { return store_.gc(); }
  Status checkpoint() { return store_.checkpoint(); }

 private:
  class Held;
  struct Victim;

  Result<Held> find(std::string_view key) const;
  static Victim drop(Transaction& transaction, const index::Name& name, Time now);
  static Result<Victim> replace(Transaction& transaction, std::string_view key, Time now);
  void finish(const Victim& victim);
  size_t log_limit() const;
  Status put_long(std::string_view key, Bytes first, const Source& source);
  Result<Held> make_nameless();
  Status name(std::string_view key, log::ObjectId inode);

  Store& store_;
};

}  // namespace valfs
