// Threads that do I/O for the storage.
#pragma once

#include <pthread.h>
#include <signal.h>

#include <thread>
#include <utility>

namespace valfs::storage {

// Starts a thread that takes no signals: those are for the threads that expect them.
template <class Function>
std::thread start_io_thread(const char* name, Function function) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread thread(std::move(function));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(thread.native_handle(), name);  // at most 15 characters
  return thread;
}

}  // namespace valfs::storage
