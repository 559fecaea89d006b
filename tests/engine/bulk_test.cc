// Bulk: what is written in long groups is not written twice (log files get their space reserved
// instead of zeros), and short commits find zeros again afterwards.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/support/sim_store.h"

namespace valfs::test {
namespace {

using storage::Operation;
using storage::OperationKind;

// What happens to log files.
class Watch {
 public:
  explicit Watch(int reserve_answers = 0) : reserve_answers_(reserve_answers) {}

  storage::SimDisk::Fault fault() {
    return [this](const Operation& operation) {
      if (operation.kind == OperationKind::kReserve) {
        reserved_.insert(operation.path);
        return reserve_answers_;
      }
      if (operation.kind == OperationKind::kWriteDurably) written_ = operation.path;
      return 0;
    };
  }
  size_t reserved() const { return reserved_.size(); }
  // Whether the last group went to one of those.
  bool goes_to_reserved() const { return reserved_.contains(written_); }

 private:
  int reserve_answers_;
  std::set<std::string> reserved_;
  std::string written_;
};

std::string name(uint64_t number) {
  return "v" + std::to_string(number);
}

constexpr size_t kLong = 24 * 1024;
constexpr uint64_t kLongValues = 60;
constexpr uint64_t kShortValues = 40;

void put_bulk(Store& store) {
  for (uint64_t i = 0; i < kLongValues; i++) {
    ASSERT_TRUE(put(store, name(i), pattern(i, kLong)));
    store.tick();
  }
  ASSERT_TRUE(store.sync());
}

void put_short(Store& store) {
  for (uint64_t i = kLongValues; i < kLongValues + kShortValues; i++) {
    ASSERT_TRUE(put(store, name(i), pattern(i, 100)));
    ASSERT_TRUE(store.sync());
    store.tick();
  }
}

void expect_all(Store& store) {
  for (uint64_t i = 0; i < kLongValues + kShortValues; i++) {
    const auto value = get(store, name(i));
    ASSERT_TRUE(value) << name(i) << ": " << value.error().what;
    EXPECT_TRUE(same_bytes(*value, pattern(i, i < kLongValues ? kLong : 100))) << name(i);
  }
  EXPECT_EQ(check_index(store), "");
}

TEST(Bulk, P2_LongGroupsGetSpaceAndShortOnesZeros) {
  storage::SimDisk disk({});
  Watch watch;
  disk.set_fault(watch.fault());
  auto store = must_open(disk, small_options());
  EXPECT_EQ(watch.reserved(), 0U) << "before anything is known, commits are taken for short";
  put_bulk(*store);
  EXPECT_GT(watch.reserved(), 0U);
  EXPECT_TRUE(watch.goes_to_reserved());
  put_short(*store);
  EXPECT_FALSE(watch.goes_to_reserved());
  const size_t reserved = watch.reserved();
  put_short(*store);
  EXPECT_EQ(watch.reserved(), reserved);

  disk.restart(storage::CrashKind::kPowerLoss);
  store = must_open(disk, small_options());
  expect_all(*store);
}

TEST(Bulk, P2_EverySyncInReservedSpaceSurvivesPowerLoss) {
  storage::SimDisk disk({});
  auto store = must_open(disk, small_options());
  put_bulk(*store);
  for (uint64_t i = 0; i < kShortValues; i++) {
    ASSERT_TRUE(put(*store, name(i), pattern(i + 1000, 100)));
    ASSERT_TRUE(store->sync());
    store->tick();
    const auto after = disk.clone_after_power_loss(i);
    const auto again = must_open(*after, small_options());
    const auto value = get(*again, name(i));
    ASSERT_TRUE(value) << value.error().what;
    EXPECT_TRUE(same_bytes(*value, pattern(i + 1000, 100))) << name(i);
  }
}

TEST(Bulk, P2_WhereSpaceCannotBeReservedZerosAreWritten) {
  storage::SimDisk disk({});
  Watch watch(EOPNOTSUPP);
  disk.set_fault(watch.fault());
  auto store = must_open(disk, small_options());
  put_bulk(*store);
  EXPECT_GT(watch.reserved(), 0U);
  put_short(*store);
  disk.restart(storage::CrashKind::kPowerLoss);
  disk.set_fault({});
  store = must_open(disk, small_options());
  expect_all(*store);
}

}  // namespace
}  // namespace valfs::test
