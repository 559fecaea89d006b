#include "tests/support/history.h"

#include <algorithm>
#include <cstdlib>
#include <iostream>

namespace valfs::test {

void History::begin(const Action& action) {
  trees_.push_back(trees_.back());
  trees_.back().apply(action);
  actions_.push_back(action);
}

void History::returned_from(const Action& action, bool was_blob) {
  returned_ = begun();
  if (action.kind == Action::kSync || action.kind == Action::kSyncFile) durable_ = returned_;
  if (action.kind == Action::kSync || action.kind == Action::kCheckpoint) {
    flushed_.push_back({returned_, 0});
  }
  if (action.kind == Action::kSyncFile) {
    flushed_.push_back({returned_, last().find(action.path)});
  } else if (action.kind == Action::kRename && was_blob) {  // flushed before it was renamed
    flushed_.push_back({returned_ - 1, last().find(action.other)});
  }
}

void History::take_back() {
  const Tree::Id id = last().find(actions_.back().path);
  if (const Tree::Node* node = last().node(id); node != nullptr && node->bytes) {
    failed_[id].push_back(node->bytes);
  }
  trees_.pop_back();
  actions_.pop_back();
}

Status History::run(Store& store, FakeClock& clock, const Action& action) {
  const auto blob_of = [&store](const std::string& path) {
    return path.empty() ? 0 : attributes_of(store, look_up(store, path)).blob;
  };
  const uint64_t blob_before = blob_of(action.path);
  begin(action);
  const bool writes = action.kind == Action::kWrite;
  if (writes && action.offset + action.length > 32 * kKiB) {
    may_move_to_blob(last().find(action.path));
  }
  VALFS_TRY(test::run(store, clock, action));
  returned_from(action, blob_before != 0);
  if (writes && blob_before == 0 && blob_of(action.path) != 0) {
    moved_to_blob(last().find(action.path));
  }
  return {};
}

std::string History::match(const StoreImage& image, size_t low, size_t high) const {
  std::string all;
  for (size_t at = high + 1; at-- > low;) {
    const std::string differs = difference(
        image, trees_[at], [&](Tree::Id id, const Bytes& found) { return may_be(id, found, at); });
    if (differs.empty()) return "";
    all += "\n  not as after " + std::to_string(at) + ": " + differs;
  }
  return all;
}

std::string History::text() const {
  std::string text;
  for (size_t i = 0; i < actions_.size(); i++) {
    text += std::to_string(i + 1) + " " + actions_[i].text() + "\n";
  }
  return text;
}

// Bytes in bin/ may lag, each for itself, up to the last flush; the size, too.
bool History::may_be(Tree::Id id, const Bytes& found, size_t at_tree) const {
  if (blobs_.count(id) == 0) return false;
  size_t from = 0;
  for (const Flush& flush : flushed_) {
    if (flush.known_from > at_tree) continue;
    if (flush.id == id || flush.id == 0) from = std::max(from, flush.at);
  }
  std::vector<const Bytes*> versions;
  size_t least = SIZE_MAX;
  size_t most = 0;
  for (size_t at = from; at < trees_.size(); at++) {
    const Tree::Node* node = trees_[at].node(id);
    if (node == nullptr) continue;
    if (!versions.empty() && versions.back() == node->bytes.get()) continue;
    versions.push_back(node->bytes.get());
    least = std::min(least, node->bytes->size());
    most = std::max(most, node->bytes->size());
  }
  if (const auto failed = failed_.find(id); failed != failed_.end()) {
    for (const auto& bytes : failed->second) versions.push_back(bytes.get());
  }
  if (found.size() < least || found.size() > most) return false;
  for (size_t i = 0; i < found.size(); i++) {
    const bool known = std::any_of(versions.begin(), versions.end(), [&](const Bytes* version) {
      return i < version->size() && (*version)[i] == found[i];
    });
    if (known) continue;
    if (std::getenv("VALFS_DEBUG") != nullptr) {
      std::cout << "byte " << i << " is " << int(found[i]) << ", may be";
      for (const Bytes* version : versions) {
        std::cout << " " << (i < version->size() ? int((*version)[i]) : -1);
      }
      std::cout << " (from " << from << ")\n";
    }
    return false;
  }
  return true;
}

}  // namespace valfs::test
