#include "engine/key_value.h"

#include <sys/stat.h>

#include <algorithm>
#include <ctime>
#include <utility>

namespace valfs {
namespace {

using index::Attributes;
using index::Found;
using index::Inode;
using index::kRoot;
using index::Name;
using log::ObjectId;
using Purpose = log::LogWriter::Purpose;

constexpr size_t kKeysAtATime = 256;

Time wall_clock() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return {now.tv_sec, static_cast<uint32_t>(now.tv_nsec)};
}

// Keys may be any bytes, and long: an error shows the beginning.
std::string shown(std::string_view key) {
  constexpr size_t kMost = 64;
  std::string text;
  for (const char c : key.substr(0, kMost)) text += c >= ' ' && c <= '~' ? c : '?';
  return key.size() > kMost ? text + "…" : text;
}

Status check(std::string_view key) {
  if (key.empty()) return fail(EINVAL, "empty key");
  if (key.size() > KeyValue::kLongestKey) {
    return fail(EINVAL, "key too long: " + std::to_string(key.size()) + " bytes");
  }
  return {};
}

Found<Inode> value_of(const index::Index& index, const Found<Name>& name) {
  return name == nullptr ? Found<Inode>() : index.find(name->inode);
}

Status must_be_value(const Found<Inode>& inode, std::string_view key) {
  if (inode == nullptr) return fail(ENOENT, "no key " + shown(key));
  if (!S_ISREG(inode->attributes.mode)) return fail(EISDIR, shown(key) + " is not a value");
  return {};
}

Result<Found<Inode>> find_value(const index::Index& index, std::string_view key) {
  auto known = value_of(index, index.find(kRoot, key));
  VALFS_TRY(must_be_value(known, key));
  return known;
}

Attributes new_value(const index::Index& index, uint64_t size, Time now) {
  Attributes attributes;
  attributes.mode = S_IFREG | 0644;
  if (const auto root = index.find(kRoot)) {
    attributes.uid = root->attributes.uid;
    attributes.gid = root->attributes.gid;
  }
  attributes.links = 1;
  attributes.size = size;
  attributes.touch(now);
  attributes.set_accessed(now);
  attributes.set_born(now);
  return attributes;
}

// Whether a value may change in place: nobody reads it, it has no other name, and is in the log.
bool is_private(const Inode& inode) {
  return inode.holds() == 0 && inode.attributes.links == 1 && inode.attributes.blob == 0;
}

// New bytes for a value; they cover the old ones, but for what lies behind their end.
void overwrite(Transaction& transaction, const Inode& inode, KeyValue::Bytes value) {
  // Whatever was damaged has to go as a whole.
  if (inode.damaged) transaction.truncate(inode.id, 0);
  if (value.size() < inode.attributes.size || value.empty()) {
    transaction.truncate(inode.id, value.size());
  }
  if (!value.empty()) transaction.write(inode.id, 0, value);
}

}  // namespace

// A value that is kept as it is: whoever puts meanwhile makes another one.
class KeyValue::Held {
 public:
  Held(Store& store, ObjectId inode, uint64_t size) : store_(&store), inode_(inode), size_(size) {}
  Held(Held&& other) noexcept
      : store_(std::exchange(other.store_, nullptr)), inode_(other.inode_), size_(other.size_) {}
  Held& operator=(Held&&) = delete;
  ~Held() {
    if (store_ != nullptr) store_->release(inode_, 1);
  }
  ObjectId inode() const { return inode_; }
  uint64_t size() const { return size_; }

 private:
  Store* store_;
  ObjectId inode_;
  uint64_t size_;
};

// A value that has lost its name.
struct KeyValue::Victim {
  ObjectId inode = 0;
  ObjectId blob = 0;  // to be removed with it
};

size_t KeyValue::log_limit() const {
  return std::min<uint64_t>(store_.options().blob_threshold, log::kMaxPayload);
}

Result<KeyValue::Held> KeyValue::find(std::string_view key) const {
  VALFS_TRY(check(key));
  ObjectId inode = 0;
  uint64_t size = 0;
  Status found;
  store_.read_index([&](const index::Index& index) {
    const auto known = find_value(index, key);
    if (!known) {
      found = tl::unexpected(known.error());
      return;
    }
    Store::hold(**known);
    inode = (*known)->id;
    size = (*known)->attributes.size;
  });
  VALFS_TRY(std::move(found));
  return Held(store_, inode, size);
}

KeyValue::Victim KeyValue::drop(Transaction& transaction, const Name& name, Time now) {
  transaction.remove_name(name);
  const auto inode = transaction.index().find(name.inode);
  if (inode == nullptr) return {};
  Attributes attributes = inode->attributes;
  attributes.links--;
  attributes.set_changed(now);
  if (attributes.links > 0 || inode->holds() > 0) {
    transaction.put(inode->id, attributes);
    return {};
  }
  transaction.remove(inode->id);
  if (attributes.blob != 0) transaction.remove(attributes.blob);
  return {inode->id, attributes.blob};
}

// Takes away what the key leads to, if anything.
Result<KeyValue::Victim> KeyValue::replace(Transaction& transaction, std::string_view key,
                                           Time now) {
  const auto known = transaction.index().find(kRoot, key);
  if (known == nullptr) return Victim{};
  const auto old = value_of(transaction.index(), known);
  if (old != nullptr) VALFS_TRY(must_be_value(old, key));
  return drop(transaction, *known, now);
}

void KeyValue::finish(const Victim& victim) {
  if (victim.blob != 0) store_.blob_removed(victim.blob, victim.inode);
}

Status KeyValue::put(std::string_view key, Bytes value) {
  VALFS_TRY(check(key));
  if (value.size() > log_limit()) {
    return put_stream(key, [rest = value]() mutable { return std::exchange(rest, Bytes{}); });
  }
  const Time now = wall_clock();
  const auto size = Transaction::Size::of(6, key.size() + Transaction::kSalvageName, value.size());
  VALFS_ASSIGN(auto transaction, store_.begin(size));
  const index::Index& index = transaction.index();
  const auto old = value_of(index, index.find(kRoot, key));
  if (old != nullptr && S_ISREG(old->attributes.mode) && is_private(*old)) {
    overwrite(transaction, *old, value);
    transaction.commit(now);
    return {};
  }
  VALFS_ASSIGN(const Victim victim, replace(transaction, key, now));
  const ObjectId inode = transaction.new_object();
  transaction.put(inode, new_value(index, value.size(), now));
  transaction.add_name(kRoot, key, inode);
  if (!value.empty()) transaction.write(inode, 0, value);
  transaction.commit(now);
  finish(victim);
  return {};
}

Status KeyValue::put_stream(std::string_view key, const Source& source) {
  VALFS_TRY(check(key));
  std::vector<std::byte> gathered;
  for (;;) {
    VALFS_ASSIGN(const Bytes piece, source());
    if (piece.empty()) return put(key, gathered);
    const bool is_long = gathered.size() + piece.size() > log_limit();
    if (is_long && gathered.empty()) return put_long(key, piece, source);
    gathered.insert(gathered.end(), piece.begin(), piece.end());
    if (is_long) return put_long(key, gathered, source);
  }
}

// `first` is more than the log takes, so that not a byte goes to the log before it goes to bin/.
// Until it has its name the value lives by being held: whatever fails, letting go removes it.
Status KeyValue::put_long(std::string_view key, Bytes first, const Source& source) {
  VALFS_ASSIGN(const Held held, make_nameless());
  uint64_t size = 0;
  for (Bytes piece = first; !piece.empty();) {
    VALFS_TRY(store_.write(held.inode(), size, piece, wall_clock()));
    size += piece.size();
    VALFS_ASSIGN(piece, source());
  }
  // The name must not outrun the bytes (P5).
  VALFS_TRY(store_.flush(held.inode()));
  return name(key, held.inode());
}

Result<KeyValue::Held> KeyValue::make_nameless() {
  const Time now = wall_clock();
  VALFS_ASSIGN(auto transaction, store_.begin(Transaction::Size::of(1, 0, 0)));
  const ObjectId inode = transaction.new_object();
  Attributes attributes = new_value(transaction.index(), 0, now);
  attributes.links = 0;
  transaction.put(inode, attributes);
  transaction.hold(inode);
  transaction.commit(now);
  return Held(store_, inode, 0);
}

Status KeyValue::name(std::string_view key, ObjectId inode) {
  const Time now = wall_clock();
  VALFS_ASSIGN(auto transaction, store_.begin(Transaction::Size::of(6, key.size(), 0)));
  VALFS_ASSIGN(const Victim victim, replace(transaction, key, now));
  Attributes attributes = transaction.index().find(inode)->attributes;
  attributes.links = 1;
  attributes.set_changed(now);
  transaction.put(inode, attributes);
  transaction.add_name(kRoot, key, inode);
  transaction.commit(now);
  finish(victim);
  return {};
}

Result<std::vector<std::byte>> KeyValue::get(std::string_view key) {
  VALFS_ASSIGN(const Held held, find(key));
  std::vector<std::byte> value(held.size());
  VALFS_ASSIGN(const size_t got, store_.read(held.inode(), 0, value));
  value.resize(got);
  return value;
}

Result<size_t> KeyValue::get(std::string_view key, uint64_t offset, std::span<std::byte> into) {
  VALFS_TRY(check(key));
  const auto find_it = [key](const index::Index& index) { return find_value(index, key); };
  VALFS_ASSIGN(const auto got, store_.read_in_log(find_it, offset, into));
  if (got) return *got;
  VALFS_ASSIGN(const Held held, find(key));
  return store_.read(held.inode(), offset, into);
}

Status KeyValue::get_stream(std::string_view key, const Sink& sink, size_t piece) {
  if (piece == 0) return fail(EINVAL, "pieces of no bytes");
  VALFS_ASSIGN(const Held held, find(key));
  std::vector<std::byte> bytes(std::min<uint64_t>(piece, held.size()));
  for (uint64_t at = 0; at < held.size();) {
    VALFS_ASSIGN(const size_t got, store_.read(held.inode(), at, bytes));
    if (got == 0) return fail(EIO, shown(key) + " ends before its size");
    VALFS_TRY(sink(std::span(bytes).first(got)));
    at += got;
  }
  return {};
}

Status KeyValue::remove(std::string_view key) {
  VALFS_TRY(check(key));
  const Time now = wall_clock();
  VALFS_ASSIGN(auto transaction, store_.begin(Transaction::Size::of(3, 0, 0), Purpose::kReserve));
  if (transaction.index().find(kRoot, key) == nullptr) return must_be_value({}, key);
  VALFS_ASSIGN(const Victim victim, replace(transaction, key, now));
  transaction.commit(now);
  finish(victim);
  return {};
}

bool KeyValue::contains(std::string_view key) const {
  return size(key).has_value();
}

Result<uint64_t> KeyValue::size(std::string_view key) const {
  VALFS_TRY(check(key));
  Result<uint64_t> size = 0;
  store_.read_index([&](const index::Index& index) {
    const auto inode = value_of(index, index.find(kRoot, key));
    if (auto found = must_be_value(inode, key); !found) {
      size = tl::unexpected(std::move(found).error());
    } else {
      size = inode->attributes.size;
    }
  });
  return size;
}

uint64_t KeyValue::count() const {
  uint64_t count = 0;
  store_.read_index([&](const index::Index& index) {
    if (const auto root = index.find(kRoot)) count = root->child_count();
  });
  return count;
}

void KeyValue::for_each(
    const std::function<bool(std::string_view key, uint64_t size)>& visit) const {
  ObjectId cookie = 0;
  std::vector<std::pair<std::string, uint64_t>> keys;
  do {
    keys.clear();
    store_.read_index([&](const index::Index& index) {
      const auto root = index.find(kRoot);
      while (root != nullptr && keys.size() < kKeysAtATime) {
        const auto name = index.next_child(*root, cookie);
        if (name == nullptr) return;
        cookie = name->cookie;
        const auto inode = value_of(index, name);
        if (inode != nullptr && S_ISREG(inode->attributes.mode)) {
          keys.emplace_back(name->name, inode->attributes.size);
        }
      }
    });
    for (const auto& [key, size] : keys) {
      if (!visit(key, size)) return;
    }
  } while (!keys.empty());
}

}  // namespace valfs
