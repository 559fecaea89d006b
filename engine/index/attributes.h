// What is known of an inode besides its value and names. The structure is the body of an INODE
// record: fixed layout, little-endian.
#pragma once

#include <cstdint>
#include <type_traits>

#include "engine/base/time.h"

namespace valfs::index {

struct Attributes {
  uint32_t mode = 0;  // type and permissions, as st_mode
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t links = 0;   // st_nlink
  uint64_t device = 0;  // st_rdev
  uint64_t size = 0;    // bytes
  uint64_t blob = 0;    // object id of the file in bin/ that holds the value; 0: it is in the log
  int64_t access_seconds = 0;
  int64_t modify_seconds = 0;
  int64_t change_seconds = 0;
  int64_t birth_seconds = 0;
  uint32_t access_nanoseconds = 0;
  uint32_t modify_nanoseconds = 0;
  uint32_t change_nanoseconds = 0;
  uint32_t birth_nanoseconds = 0;

  Time accessed() const { return {access_seconds, access_nanoseconds}; }
  Time modified() const { return {modify_seconds, modify_nanoseconds}; }
  Time changed() const { return {change_seconds, change_nanoseconds}; }
  Time born() const { return {birth_seconds, birth_nanoseconds}; }
  void set_accessed(Time t) { access_seconds = t.seconds, access_nanoseconds = t.nanoseconds; }
  void set_modified(Time t) { modify_seconds = t.seconds, modify_nanoseconds = t.nanoseconds; }
  void set_changed(Time t) { change_seconds = t.seconds, change_nanoseconds = t.nanoseconds; }
  void set_born(Time t) { birth_seconds = t.seconds, birth_nanoseconds = t.nanoseconds; }
  // What every change of content does.
  void touch(Time t) { set_modified(t), set_changed(t); }

  friend bool operator==(const Attributes&, const Attributes&) = default;
};
static_assert(sizeof(Attributes) == 88 && std::is_trivially_copyable_v<Attributes>);

}  // namespace valfs::index
