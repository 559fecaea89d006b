// Every bit of a small volume, flipped one at a time (T4), and every byte overwritten with 0x00 and
// 0xFF. What damage may do, and no more:
//
// - `super`, one copy of four: nothing.
// - a checkpoint: nothing; the mount says so and reads the whole log.
// - a log file's header block: nothing; its groups say what it is.
// - a group's header, directory or padding: nothing; its records are found again.
// - a record: what it says of its object. Values that have lost bytes answer EIO; attributes, a
//   name or a removal that is lost is reported at the mount. No other object changes.
// - the last group before power loss: it may be taken for torn, as no later group vouches for it.
// - bin/: the chunk answers EIO.
//
// Never is a byte read that was not written there (P0), and never a neighbour touched (P9).
//
// CI flips one bit of every byte (VALFS_SEED chooses which), in payloads and bin/ of one byte in
// sixteen; every 64th volume is then cleaned, unmounted and mounted again. VALFS_NIGHTLY: all bits,
// and both bytes.
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iostream>
#include <set>

#include "engine/log/group.h"
#include "tests/support/crash_check.h"

namespace valfs::test {
namespace {

using log::ObjectId;
using log::RecordType;
using storage::CrashKind;
using storage::SimDisk;

// Payload and bin/ are long and all alike: CI takes one byte in so many.
constexpr uint64_t kPayloadStride = 16;

enum class Ending {
  kUnmounted,  // a checkpoint covers everything
  kPowerLoss,  // no checkpoint: the log alone
  kTailAndCheckpoint,
  kCleaned,  // unmounted, after the cleaner has compressed what it could
};

StoreOptions tiny_options(const FakeClock& clock, Ending ending) {
  StoreOptions options = small_options(clock);
  options.slots = 2;
  options.slot_size = 32 * kKiB;
  options.log_file_size = 64 * kKiB;
  options.checkpoint_after = 1 << 30;
  if (ending == Ending::kCleaned) options.compression = Compression::kLz4;
  return options;
}

// What a store holds, by inode: so that a lost directory takes nothing but its own name along.
struct Object {
  uint32_t mode = 0;
  uint32_t links = 0;
  std::set<std::pair<ObjectId, std::string>> names;  // parent, name
  uint64_t size = 0;
  Bytes bytes;
  int error = 0;  // of reading it
  bool directory() const { return (mode & 0170000) == 0040000; }
};

std::map<ObjectId, Object> objects_of(Store& store) {
  std::map<ObjectId, Object> objects;
  store.read_index([&](const index::Index& index) {
    index.for_each_inode([&](const index::Inode& inode) {
      if (inode.sums) return;
      Object& object = objects[inode.id];
      object.mode = inode.attributes.mode;
      object.links = inode.attributes.links;
      object.size = inode.attributes.size;
      for (auto name = index.first_name(inode); name; name = index.next_name(*name)) {
        object.names.emplace(name->parent, name->name);
      }
    });
  });
  for (auto& [id, object] : objects) {
    if (object.directory()) continue;
    object.bytes.resize(object.size);
    const auto got = store.read(id, 0, object.bytes);
    object.error = got ? 0 : got.error().code;
    if (got && *got != object.size) object.error = ERANGE;
  }
  return objects;
}

// Bytes [begin, end) of a file: what lies there, and which objects it is about.
struct Part {
  uint64_t begin = 0;
  uint64_t end = 0;
  bool payload = false;
  RecordType type{};
  std::set<ObjectId> objects;
  bool last_group = false;
};

class Volume {
 public:
  explicit Volume(Ending ending) : options_(tiny_options(clock_, ending)) {
    spdlog::set_level(spdlog::level::off);
    auto store = must_open(disk_, options_);
    fill(*store, 1);
    if (ending == Ending::kTailAndCheckpoint) {
      EXPECT_TRUE(store->checkpoint());
    }
    fill(*store, 2);
    EXPECT_TRUE(store->sync());
    const bool closed = ending == Ending::kUnmounted || ending == Ending::kCleaned;
    if (ending == Ending::kCleaned) {
      EXPECT_TRUE(store->gc());
      EXPECT_GE(store->stats().compressed_records, 3u);
    }
    if (closed) {
      EXPECT_TRUE(store->close());
    } else {
      // A small group that vouches for all before it.
      act(*store, {Action::kChangeMode, "link1", "", 0640, 0, 0});
      EXPECT_TRUE(store->sync());
    }
    store.reset();
    disk_.restart(CrashKind::kPowerLoss);
    const auto clone = disk_.clone_after_process_kill(1);
    const auto sound = must_open(*clone, options_);
    sound_ = objects_of(*sound);
    sound->read_index([&](const index::Index& index) {
      index.for_each_inode([&](const index::Inode& inode) {
        if (inode.attributes.blob != 0) blobs_[inode.attributes.blob] = inode.id;
      });
    });
    for (const std::string& path : disk_.files()) find_parts(path);
    if (closed) return;
    for (auto& [path, parts] : parts_) {
      for (Part& part : parts) {
        part.last_group = path == last_group_.first && part.begin >= last_group_.second;
        if (!part.last_group) continue;
        for (const Part& other : parts) {  // all of it may go
          if (other.begin >= last_group_.second) {
            part.objects.insert(other.objects.begin(), other.objects.end());
          }
        }
      }
    }
  }

  const SimDisk& disk() const { return disk_; }
  const std::map<std::string, std::vector<Part>>& parts() const { return parts_; }
  uint64_t log_bytes() const { return log_bytes_; }

  // Opens the volume with `damage` done to it, and checks what is found. "" or what is wrong.
  template <class Damage>
  std::string check(const Part& part, bool go_on, Damage damage) const {
    const auto disk = disk_.clone_after_process_kill(1);
    damage(*disk);
    auto opened = open_store(*disk, options_);
    if (!opened) return "does not open: " + opened.error().what;
    std::string wrong = compare(**opened, part);
    if (!wrong.empty() || !go_on) return wrong;
    // Cleaning, a checkpoint and another mount do not make it worse.
    if (const auto done = (*opened)->gc(); !done) return "gc: " + done.error().what;
    wrong = compare(**opened, part);
    if (!wrong.empty()) return "after gc: " + wrong;
    const bool reported = is_reported(**opened);
    if (const auto done = (*opened)->close(); !done) return "close: " + done.error().what;
    (*opened).reset();
    opened = open_store(*disk, options_);
    if (!opened) return "does not open again: " + opened.error().what;
    wrong = compare(**opened, part, reported);
    return wrong.empty() ? "" : "at the next mount: " + wrong;
  }

 private:
  void act(Store& store, const Action& action) {
    const auto done = history_.run(store, clock_, action);
    ASSERT_TRUE(done) << action.text() << ": " << done.error().what;
    const bool made = action.kind == Action::kCreate || action.kind == Action::kMakeDirectory;
    if (made) ids_[look_up(store, action.path)] = history_.last().find(action.path);
  }

  // A little of everything, in groups of a few records.
  void fill(Store& store, uint64_t round) {
    const auto name = [&](const char* text, uint64_t i = 0) {
      return text + std::to_string(round) + (i == 0 ? "" : "_" + std::to_string(i));
    };
    act(store, {Action::kMakeDirectory, name("dir"), "", 0, 0, 0});
    act(store, {Action::kMakeDirectory, name("dir") + "/" + name("sub"), "", 0, 0, 0});
    for (uint64_t i = 1; i <= 10; i++) {
      const std::string path = name("dir") + "/" + name("file", i);
      act(store, {Action::kCreate, path, "", 0, 0, 0});
      if (i != 1) act(store, {Action::kWrite, path, "", 0, i * i * 60, round * 100 + i});
      if (i % 3 == 0) act(store, {Action::kWrite, path, "", i * 20, 700, round * 200 + i});
      if (i % 4 == 0) act(store, {Action::kSync, "", "", 0, 0, 0});
    }
    const std::string dir = name("dir") + "/";
    act(store, {Action::kTruncate, dir + name("file", 5), "", 333, 0, 0});
    act(store, {Action::kPunch, dir + name("file", 6), "", 200, 900, 0});
    act(store, {Action::kRename, dir + name("file", 7), dir + name("sub") + "/moved", 0, 0, 0});
    act(store, {Action::kRename, dir + name("file", 8), dir + name("file", 9), 0, 0, 0});
    act(store, {Action::kLink, dir + name("file", 10), name("link"), 0, 0, 0});
    act(store, {Action::kSync, "", "", 0, 0, 0});
    act(store, {Action::kRemove, dir + name("file", 2), "", 0, 0, 0});
    act(store, {Action::kChangeMode, dir + name("file", 3), "", 0600, 0, 0});
    if (round == 1) {
      act(store, {Action::kCreate, "large", "", 0, 0, 0});
      for (uint64_t at = 0; at < 5; at++) {
        act(store, {Action::kWrite, "large", "", at * 16000, 16000, 900 + at});
      }
      act(store, {Action::kSync, "", "", 0, 0, 0});
    } else {
      act(store, {Action::kWrite, "dir1/file1_4", "", 100, 5000, 77});
      act(store, {Action::kRename, "dir1/sub1/moved", "dir1/sub1/again", 0, 0, 0});
    }
  }

  void find_parts(const std::string& path) {
    const auto bytes = *disk_.contents(path);
    std::vector<Part>& parts = parts_[path];
    if (path.rfind("bin/", 0) == 0) {
      Part part{0, bytes.size(), true, RecordType::kExtent, {}};
      for (const auto& [blob, inode] : blobs_) part.objects.insert(inode);  // there is one
      parts.push_back(part);
    } else if (path.rfind("wal/", 0) == 0) {
      find_records(path, bytes, parts);
    } else {
      parts.push_back({0, bytes.size(), false, {}, {}});
    }
  }

  void find_records(const std::string& path, std::span<const std::byte> bytes,
                    std::vector<Part>& parts) {
    uint64_t at = 0;  // up to here parts are known
    const auto gap = [&](uint64_t end) {
      if (end > at) parts.push_back({at, end, false, {}, {}});
      at = end;
    };
    log::LogFileHeader head;
    std::memcpy(&head, bytes.data(), sizeof head);
    const log::Salt salt{head.volume.salt(), head.file, head.epoch};
    for (uint64_t offset = log::kFirstGroupOffset; offset + log::kBlock <= bytes.size();) {
      const auto header = log::decode_group_header(bytes.subspan(offset), salt, offset);
      if (!header) {  // freed, or the end
        offset += log::kBlock;
        continue;
      }
      gap(offset);  // the file's header, what was freed, or nothing
      const uint64_t length = log::round_up(header->length, log::kBlock);
      const auto contents = log::read_group(bytes.subspan(offset, length), *header, salt, offset);
      EXPECT_TRUE(contents.whole);
      for (const auto& entry : contents.records) {
        const log::FoundRecord& found = entry.found;
        gap(offset + entry.offset);
        const uint64_t meta = at + found.meta_length;
        parts.push_back({at, meta, false, found.record.type, touched_by(found.record)});
        if (found.payload_length > 0) {
          parts.push_back(
              {meta, at + found.total_length, true, found.record.type, touched_by(found.record)});
        }
        at += found.total_length;
      }
      gap(offset + length);
      if (header->sequence > last_sequence_) {
        last_sequence_ = header->sequence;
        last_group_ = {path, offset};
      }
      log_bytes_ += length;
      offset += length;
    }
    if (at == 0) gap(log::kFirstGroupOffset);
  }

  std::set<ObjectId> touched_by(const log::Record& record) const {
    if (record.type == RecordType::kName || record.type == RecordType::kUnname) return {record.a};
    const auto blob = blobs_.find(record.id);
    return {blob == blobs_.end() ? record.id : blob->second};
  }

  static bool is_reported(const Store& store) {
    const auto stats = store.stats();
    return stats.damaged_groups + stats.damaged_values > 0 || !store.recovery_warnings().empty();
  }

  // P0: each byte is one that the file once had there.
  bool was_written(ObjectId id, const Bytes& bytes) const {
    const auto known = ids_.find(id);
    if (known == ids_.end()) return bytes.empty();
    std::vector<const Bytes*> versions;
    for (size_t at = 0; at <= history_.begun(); at++) {
      const Tree::Node* node = history_.tree(at).node(known->second);
      if (node == nullptr || !node->bytes) continue;
      if (versions.empty() || versions.back() != node->bytes.get()) {
        versions.push_back(node->bytes.get());
      }
    }
    for (size_t i = 0; i < bytes.size(); i++) {
      const bool known_byte = std::any_of(versions.begin(), versions.end(), [&](const Bytes* v) {
        return i < v->size() && (*v)[i] == bytes[i];
      });
      if (!known_byte) return false;
    }
    return true;
  }

  std::string compare(Store& store, const Part& part, bool reported_before = false) const {
    const bool reported = reported_before || part.last_group || is_reported(store);
    const auto found = objects_of(store);
    const auto is_hit = [&](ObjectId id) { return part.objects.count(id) > 0; };
    const bool directory_hit =
        std::any_of(part.objects.begin(), part.objects.end(), [&](ObjectId id) {
          const auto known = sound_.find(id);
          return known == sound_.end() || known->second.directory();
        });
    const auto text = [](ObjectId id) { return "inode " + std::to_string(id); };
    for (const auto& [id, sound] : sound_) {
      const auto at = found.find(id);
      if (at == found.end()) {
        if (is_hit(id) && reported) continue;
        return text(id) + " is gone";
      }
      const Object& object = at->second;
      if (object.error != 0 && (object.error != EIO || !is_hit(id))) {
        return text(id) + " answers " + std::strerror(object.error);
      }
      const bool same_bytes_there = object.error != 0 || same_bytes(object.bytes, sound.bytes);
      // Directories count their subdirectories; the root gets lost+found.
      const bool same_links =
          object.links == sound.links || (sound.directory() && (directory_hit || reported));
      const bool same = same_bytes_there && object.names == sound.names &&
                        object.mode == sound.mode && same_links;
      if (same) continue;
      if (!is_hit(id)) return text(id) + " has changed, and was not hit";
      if (!reported) return text(id) + " has changed, and nobody says so";
      if (!same_bytes_there && !was_written(id, object.bytes)) {
        return "P0: " + text(id) + " has bytes that were never written";
      }
    }
    for (const auto& [id, object] : found) {
      if (sound_.count(id) > 0) continue;
      if (!reported) return text(id) + " has come from nowhere";
      const bool lost_and_found = object.directory() && object.names.size() == 1 &&
                                  object.names.begin()->second == "lost+found";
      if (!is_hit(id) && !lost_and_found) return text(id) + " has come back, and was not hit";
    }
    return check_index(store);
  }

  SimDisk disk_{{.seed = 11}};
  FakeClock clock_;
  const StoreOptions options_;
  History history_;
  std::map<ObjectId, Tree::Id> ids_;
  std::map<ObjectId, ObjectId> blobs_;  // → inode
  std::map<ObjectId, Object> sound_;
  std::map<std::string, std::vector<Part>> parts_;
  uint64_t log_bytes_ = 0;
  log::GroupSequence last_sequence_ = 0;
  std::pair<std::string, uint64_t> last_group_;  // file, offset
};

class Sweep {
 public:
  explicit Sweep(Ending ending) : volume_(ending) {}

  void run() {
    EXPECT_LE(volume_.log_bytes(), 256 * kKiB);
    EXPECT_GE(volume_.log_bytes(), 16 * kKiB);
    const auto start = std::chrono::steady_clock::now();
    for (const auto& [path, parts] : volume_.parts()) {
      for (const Part& part : parts) sweep_part(path, part);
    }
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    std::cout << tried_ << " mounts, " << volume_.log_bytes()
              << " bytes of log, VALFS_SEED=" << seed_ << ", "
              << static_cast<uint64_t>(static_cast<double>(tried_) / seconds) << " a second; "
              << failed_ << " failed\n";
  }

 private:
  void sweep_part(const std::string& path, const Part& part) {
    const uint64_t stride =
        nightly() ? 1 : (part.payload ? kPayloadStride : 1) * 100 / with_effort(100);
    for (uint64_t at = part.begin + (stride > 1 ? seed_ % stride : 0); at < part.end;
         at += stride) {
      const uint64_t first = nightly() ? 0 : (seed_ + at * 5) % 8;
      for (uint64_t bit = first; bit < (nightly() ? 8 : first + 1); bit++) {
        attempt(path, at, part, "bit " + std::to_string(bit),
                [&](SimDisk& disk) { (void)disk.flip_bit(path, at * 8 + bit); });
      }
      if (!nightly()) continue;
      for (const auto byte : {std::byte{0}, std::byte{0xff}}) {
        attempt(path, at, part, byte == std::byte{0} ? "0x00" : "0xff", [&](SimDisk& disk) {
          (void)disk.corrupt(path, at, {&byte, 1});
        });
      }
    }
  }

  template <class Damage>
  void attempt(const std::string& path, uint64_t at, const Part& part, const std::string& what,
               Damage damage) {
    if (failed_ >= 60) return;
    const std::string wrong = volume_.check(part, tried_++ % 64 == 0, damage);
    if (wrong.empty()) return;
    failed_++;
    ADD_FAILURE() << path << ", byte " << at << ", " << what << " (record of type "
                  << int(part.type) << ", from " << part.begin << " to " << part.end
                  << (part.payload ? ", payload" : "") << "): " << wrong;
  }

  const Volume volume_;
  const uint64_t seed_ = from_environment("VALFS_SEED", 1);
  uint64_t tried_ = 0;
  uint64_t failed_ = 0;
};

TEST(BitFlip, P0_P9_EveryByteOfAnUnmountedVolume) {
  Sweep(Ending::kUnmounted).run();
}

TEST(BitFlip, P0_P9_EveryByteOfALogWithoutCheckpoint) {
  Sweep(Ending::kPowerLoss).run();
}

TEST(BitFlip, P0_P9_EveryByteOfACheckpointAndATail) {
  Sweep(Ending::kTailAndCheckpoint).run();
}

TEST(BitFlip, P0_P9_F38_EveryByteOfACleanedVolume) {
  Sweep(Ending::kCleaned).run();
}

}  // namespace
}  // namespace valfs::test
