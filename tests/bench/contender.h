// The stores that are compared, behind one face. Failure is the end of the benchmark: whoever
// cannot do what is asked prints why and aborts.
//
// put, get, remove and sync may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace valfs::bench {

struct Setting {
  std::string directory;  // exists
  uint64_t cache = 0;     // bytes
};

class Contender {
 public:
  virtual ~Contender() = default;  // closes
  virtual void put(std::string_view key, std::span<const std::byte> value) = 0;
  // … and on the disk.
  virtual void put_durably(std::string_view key, std::span<const std::byte> value) = 0;
  // Returns the value's size, 0 if there is none; its bytes have been read into memory.
  virtual size_t get(std::string_view key) = 0;
  virtual void remove(std::string_view key) = 0;
  virtual void sync() = 0;
  // Collects garbage.
  virtual void compact() = 0;
};

using Open = std::unique_ptr<Contender> (*)(const Setting&);
std::unique_ptr<Contender> open_valfs(const Setting& setting);
std::unique_ptr<Contender> open_rocksdb(const Setting& setting);

[[noreturn]] void give_up(const std::string& what);

}  // namespace valfs::bench
