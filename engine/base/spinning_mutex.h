// A shared mutex for short critical sections: whoever finds it taken looks again for some
// microseconds before going to sleep. Being woken up on another CPU costs many times what the
// holder still needs.
#pragma once

#include <shared_mutex>

namespace valfs {

// For std::unique_lock and std::shared_lock. Thread-safe.
class SpinningMutex {
 public:
  void lock() {
    if (!spin([this] { return mutex_.try_lock(); })) mutex_.lock();
  }
  bool try_lock() { return mutex_.try_lock(); }
  void unlock() { mutex_.unlock(); }

  void lock_shared() {
    if (!spin([this] { return mutex_.try_lock_shared(); })) mutex_.lock_shared();
  }
  bool try_lock_shared() { return mutex_.try_lock_shared(); }
  void unlock_shared() { mutex_.unlock_shared(); }

 private:
  static constexpr int kTries = 64;
  static constexpr int kPauses = 8;  // between two; together some 5 to 20 microseconds

  template <class Try>
  static bool spin(Try acquire) {
    for (int i = 0; i < kTries; i++) {
      if (acquire()) return true;
      for (int j = 0; j < kPauses; j++) pause();
    }
    return false;
  }
  static void pause() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  std::shared_mutex mutex_;
};

}  // namespace valfs
