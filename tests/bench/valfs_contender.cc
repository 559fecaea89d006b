#include <cstdio>
#include <cstdlib>
#include <vector>

#include "engine/key_value.h"
#include "engine/storage/kernel_storage.h"
#include "tests/bench/contender.h"

namespace valfs::bench {
namespace {

void must(const Status& status) {
  if (!status) give_up("valfs: " + status.error().what);
}

class Valfs final : public Contender {
 public:
  explicit Valfs(std::unique_ptr<Store> store) : store_(std::move(store)), values_(*store_) {}
  ~Valfs() override { must(store_->close()); }

  void put(std::string_view key, std::span<const std::byte> value) override {
    must(values_.put(key, value));
  }
  void put_durably(std::string_view key, std::span<const std::byte> value) override {
    must(values_.put(key, value));
    must(values_.sync());
  }
  size_t get(std::string_view key) override {
    thread_local std::vector<std::byte> into(1 << 20);
    const auto got = values_.get(key, 0, into);
    if (!got && got.error().code != ENOENT) give_up("valfs: " + got.error().what);
    return got ? *got : 0;
  }
  void remove(std::string_view key) override { must(values_.remove(key)); }
  void sync() override { must(values_.sync()); }
  void compact() override {
    if (auto collected = values_.gc(); !collected) give_up("valfs: " + collected.error().what);
  }

 private:
  std::unique_ptr<Store> store_;
  KeyValue values_;
};

}  // namespace

std::unique_ptr<Contender> open_valfs(const Setting& setting) {
  auto storage =
      storage::open_kernel_storage({.data_directory = setting.directory, .staging_directory = ""});
  if (!storage) give_up("valfs: " + storage.error().what);
  StoreOptions options;
  options.create = true;
  options.cache = setting.cache;
  auto store = Store::open(std::move(*storage), options);
  if (!store) give_up("valfs: " + store.error().what);
  const StoreStats stats = (*store)->stats();
  std::fprintf(stderr, "  valfs: %s, %s, %lu groups replayed, %lu footers used\n", stats.io.c_str(),
               stats.used_checkpoint ? "from checkpoint" : "no checkpoint", stats.replayed_groups,
               stats.footers_used);
  return std::make_unique<Valfs>(std::move(*store));
}

}  // namespace valfs::bench
