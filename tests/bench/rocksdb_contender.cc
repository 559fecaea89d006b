// RocksDB with its values in blob files, as comparable as can be: no compression on either side,
// the same memory for caches, a write-ahead log.
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>

#include "tests/bench/contender.h"

namespace valfs::bench {
namespace {

void must(const rocksdb::Status& status) {
  if (!status.ok()) give_up("RocksDB: " + status.ToString());
}

rocksdb::Slice slice(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class RocksDb final : public Contender {
 public:
  explicit RocksDb(rocksdb::DB* database) : database_(database) { durably_.sync = true; }
  ~RocksDb() override { must(database_->Close()); }

  void put(std::string_view key, std::span<const std::byte> value) override {
    must(database_->Put({}, key, slice(value)));
  }
  void put_durably(std::string_view key, std::span<const std::byte> value) override {
    must(database_->Put(durably_, key, slice(value)));
  }
  size_t get(std::string_view key) override {
    thread_local rocksdb::PinnableSlice value;
    const auto found = database_->Get({}, database_->DefaultColumnFamily(), key, &value);
    if (!found.IsNotFound()) must(found);
    const size_t size = value.size();
    value.Reset();  // it may be pinned in a cache that does not live as long as this thread
    return size;
  }
  void remove(std::string_view key) override { must(database_->Delete({}, key)); }
  void sync() override { must(database_->SyncWAL()); }
  void compact() override {
    rocksdb::CompactRangeOptions options;
    options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
    must(database_->CompactRange(options, nullptr, nullptr));
  }

 private:
  std::unique_ptr<rocksdb::DB> database_;
  rocksdb::WriteOptions durably_;
};

}  // namespace

std::unique_ptr<Contender> open_rocksdb(const Setting& setting) {
  const auto cache = rocksdb::NewLRUCache(setting.cache);
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = cache;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  rocksdb::Options options;
  options.create_if_missing = true;
  options.compression = rocksdb::kNoCompression;
  options.enable_blob_files = true;
  options.min_blob_size = 512;
  options.blob_compression_type = rocksdb::kNoCompression;
  options.enable_blob_garbage_collection = true;
  options.blob_cache = cache;
  options.max_background_jobs = 2;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  rocksdb::DB* database = nullptr;
  must(rocksdb::DB::Open(options, setting.directory, &database));
  return std::make_unique<RocksDb>(database);
}

}  // namespace valfs::bench
