// Points in time as files have them: seconds since 1970 (negative before), and nanoseconds.
#pragma once

#include <cstdint>

namespace valfs {

struct Time {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;  // 0 … 999,999,999
  friend constexpr bool operator==(Time, Time) = default;
};

}  // namespace valfs
