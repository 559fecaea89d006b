// What a store should hold: a tree of files in memory, changes to it, and a comparison.
#pragma once

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/support/sim_store.h"

namespace valfs::test {

// One change of the tree, or something that must not change it.
struct Action {
  enum Kind {
    kCreate,
    kMakeDirectory,
    kWrite,
    kTruncate,
    kPunch,
    kRemove,
    kRename,
    kLink,
    kChangeMode,
    kSync,
    kSyncFile,
    kGc,
    kCleanStep,
    kCheckpoint,
    kTick,
    kDropCaches,
  };
  Kind kind;
  std::string path;
  std::string other;    // of rename and link
  uint64_t offset = 0;  // also the size of a truncation, the permissions of a mode
  uint64_t length = 0;
  uint64_t seed = 0;

  std::string text() const;
};

// A tree of one moment. Copies are cheap: they share the values.
class Tree {
 public:
  using Id = uint64_t;
  struct Node {
    bool directory = false;
    uint32_t permissions = 0;
    uint32_t links = 0;
    std::shared_ptr<const Bytes> bytes;
  };

  Tree();
  Id find(const std::string& path) const;  // 0: not there
  const Node* node(Id id) const;
  const std::map<std::string, Id>& paths() const { return paths_; }  // of all but the root
  size_t node_count() const { return nodes_.size(); }
  // The action must make sense here.
  void apply(const Action& action);

 private:
  void drop(const std::string& path);

  std::map<std::string, Id> paths_;
  std::map<Id, Node> nodes_;
  Id next_ = 2;
};

// Makes actions that make sense. `large`: values that go to bin/ are among them.
class ActionSource {
 public:
  ActionSource(uint64_t seed, bool large) : random_(seed), large_(large) {}
  Action next(const Tree& tree);

 private:
  uint64_t below(uint64_t n) { return random_() % n; }
  std::string some_path(const Tree& tree, bool directories);
  std::string new_path(const Tree& tree);
  Action try_next(const Tree& tree);

  std::mt19937_64 random_;
  bool large_;
  uint64_t names_ = 0;
};

Status run(Store& store, FakeClock& clock, const Action& action);

// A reading of everything in a store.
struct StoreImage {
  struct Entry {
    bool directory = false;
    uint32_t permissions = 0;
    uint32_t links = 0;
    log::ObjectId inode = 0;
    bool blob = false;
    Bytes bytes;
  };
  std::map<std::string, Entry> paths;
  size_t inodes = 0;
  std::string error;  // something could not be read

  static StoreImage of(Store& store);
};

// "" or what differs. `may_be` is asked about values in bin/ that differ.
using MayBe = std::function<bool(Tree::Id id, const Bytes& found)>;
std::string difference(const StoreImage& image, const Tree& tree, const MayBe& may_be = {});

}  // namespace valfs::test
