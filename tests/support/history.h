// A history of changes, every tree that it went through, and what the store has promised when.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/support/tree_model.h"

namespace valfs::test {

class History {
 public:
  History() { trees_.emplace_back(); }
  const Tree& last() const { return trees_.back(); }
  const Tree& tree(size_t at) const { return trees_[at]; }
  size_t begun() const { return trees_.size() - 1; }
  size_t returned() const { return returned_; }  // so many actions have (P1)
  size_t durable() const { return durable_; }    // so many have been synced (P2)
  // The action under way, or the last one.
  const Action& action() const { return actions_.back(); }
  bool empty() const { return actions_.empty(); }

  void begin(const Action& action);
  void returned_from(const Action& action, bool was_blob);
  // The value moved to bin/ by the action that has returned: what it was before is durable there,
  // as far as the log leads there.
  void moved_to_blob(Tree::Id id) { flushed_.push_back({returned_ - 1, id, returned_}); }
  // The action under way may do so.
  void may_move_to_blob(Tree::Id id) { blobs_.insert(id); }

  // The action begun last has failed and changed nothing; of a value in bin/ it may have changed
  // some bytes.
  void take_back();
  // Runs the action on the store and notes all of that. If it fails it stays begun.
  Status run(Store& store, FakeClock& clock, const Action& action);

  // "" if the image is one of the trees low … high; else how it differs from each of them.
  std::string match(const StoreImage& image, size_t low, size_t high) const;

  // True if a reader may find these bytes in a value in bin/ now.
  bool may_hold(Tree::Id id, const Bytes& found) const { return may_be(id, found, begun()); }

  std::string text() const;

 private:
  struct Flush {
    size_t at;
    Tree::Id id;            // 0: all
    size_t known_from = 0;  // of earlier trees it says nothing: the value lay in another blob
  };

  bool may_be(Tree::Id id, const Bytes& found, size_t at_tree) const;

  std::vector<Tree> trees_;
  std::vector<Action> actions_;
  std::vector<Flush> flushed_;
  std::set<Tree::Id> blobs_;
  std::map<Tree::Id, std::vector<std::shared_ptr<const Bytes>>> failed_;  // writes
  size_t returned_ = 0;
  size_t durable_ = 0;
};

}  // namespace valfs::test
