// Has memory fetched before it is needed: a hint.
#pragma once

namespace valfs {

inline void prefetch(const void* at) {
  __builtin_prefetch(at);
  // GCC 12 takes a function that does nothing but prefetch for one without effect, and drops calls.
  asm volatile("");
}

}  // namespace valfs
