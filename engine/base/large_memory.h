// Memory for tables that are read at random: in huge pages where the kernel has them (madvise(2),
// MADV_HUGEPAGE), because with 4 KiB pages most of such a read goes into the page tables.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <memory_resource>
#include <new>

namespace valfs {

inline constexpr size_t kHugePage = size_t{2} << 20;  // bytes

// Not zeroed. Given back by std::free().
inline void* allocate_large(size_t bytes) {
  const size_t whole = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* at = std::aligned_alloc(kHugePage, whole);
  if (at == nullptr) throw std::bad_alloc();
  (void)::madvise(at, whole, MADV_HUGEPAGE);  // without them it is merely slower
  return at;
}

// For standard containers; small ones lie in ordinary memory.
template <class T>
struct LargeAllocator {
  using value_type = T;
  LargeAllocator() = default;
  template <class U>
  LargeAllocator(const LargeAllocator<U>&) {}
  T* allocate(size_t count) {
    const size_t bytes = count * sizeof(T);
    void* at = bytes >= kHugePage / 2 ? allocate_large(bytes) : std::malloc(bytes);
    if (at == nullptr) throw std::bad_alloc();
    return static_cast<T*>(at);
  }
  void deallocate(T* at, size_t) { std::free(at); }
  friend bool operator==(const LargeAllocator&, const LargeAllocator&) { return true; }
};

// The same for containers with a memory_resource of their own.
class LargeMemory : public std::pmr::memory_resource {
  void* do_allocate(size_t bytes, size_t) override {
    return LargeAllocator<std::byte>().allocate(bytes);
  }
  void do_deallocate(void* at, size_t bytes, size_t) override {
    LargeAllocator<std::byte>().deallocate(static_cast<std::byte*>(at), bytes);
  }
  bool do_is_equal(const memory_resource& other) const noexcept override { return this == &other; }
};

}  // namespace valfs
