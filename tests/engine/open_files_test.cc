// The bound on open descriptors: files are closed and opened again unseen.
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "engine/storage/kernel_storage.h"
#include "tests/support/blocks.h"

namespace valfs::storage {
namespace {

using test::Blocks;
using test::bytes_of;

constexpr size_t kLimit = 4;

class OpenFilesTest : public testing::Test {
 protected:
  OpenFilesTest() {
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
    path_ = std::filesystem::canonical(path_);
    storage_ = std::move(*open_kernel_storage({.data_directory = path_,
                                               .staging_directory = "",
                                               .use_ring = false,
                                               .open_files = kLimit}));
  }
  ~OpenFilesTest() override {
    storage_.reset();
    std::filesystem::remove_all(path_);
  }

  // Files "f0" … with their names as contents.
  std::vector<std::shared_ptr<File>> make(size_t count, bool sync = true) {
    std::vector<std::shared_ptr<File>> files;
    for (size_t i = 0; i < count; i++) {
      files.push_back(*storage_->open("f" + std::to_string(i), OpenMode::kCreate));
      EXPECT_TRUE(files.back()->write(0, bytes_of("f" + std::to_string(i))));
      if (sync) {
        EXPECT_TRUE(files.back()->sync());
      }
    }
    return files;
  }

  static std::string text(File& file) {
    std::string found(20, '?');
    const auto count = file.read(0, std::as_writable_bytes(std::span(found)));
    return count ? found.substr(0, *count) : count.error().what;
  }

  // Descriptors of files "f…", removed ones too.
  size_t open_descriptors() const {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
      std::error_code ignored;
      const std::string target = std::filesystem::read_symlink(entry.path(), ignored);
      count += target.starts_with(path_ + "/f") ? 1 : 0;
    }
    return count;
  }

  std::string path_ = (std::getenv("TMPDIR") != nullptr ? std::getenv("TMPDIR") : "/var/tmp") +
                      std::string("/valfs-test-XXXXXX");
  std::unique_ptr<Storage> storage_;
};

TEST_F(OpenFilesTest, F20_AtMostSoManyAreOpen) {
  const auto files = make(20);
  EXPECT_LE(open_descriptors(), kLimit);
  for (int round = 0; round < 3; round++) {
    for (size_t i = 0; i < files.size(); i++) {
      EXPECT_EQ(text(*files[i]), "f" + std::to_string(i));
      EXPECT_EQ(files[i]->info()->size, i < 10 ? 2u : 3u);
    }
    EXPECT_LE(open_descriptors(), kLimit);
  }
  ASSERT_TRUE(files[0]->write(1, bytes_of("x")));
  EXPECT_EQ(text(*files[0]), "fx");
}

TEST_F(OpenFilesTest, F20_ARemovedFileStaysWithItsReaders) {
  const auto files = make(20);
  for (size_t i = 0; i < files.size(); i++) {
    ASSERT_TRUE(storage_->remove("f" + std::to_string(i)));
  }
  ASSERT_TRUE(storage_->open("f3", OpenMode::kCreate));  // another of that name
  for (size_t i = 0; i < files.size(); i++) EXPECT_EQ(text(*files[i]), "f" + std::to_string(i));
}

TEST_F(OpenFilesTest, F20_ARenamedFileStaysWithItsReaders) {
  const auto files = make(10);
  ASSERT_TRUE(storage_->rename("f1", "f2"));
  for (size_t i = 0; i < files.size(); i++) EXPECT_EQ(text(*files[i]), "f" + std::to_string(i));
  EXPECT_EQ(text(**storage_->open("f2", OpenMode::kRead)), "f1");
}

// The kernel tells an error of writing back to those who had the file open then.
TEST_F(OpenFilesTest, P8_AFileWithUnsyncedBytesStaysOpen) {
  const auto files = make(12, false);
  EXPECT_EQ(open_descriptors(), files.size());
  for (const auto& file : files) ASSERT_TRUE(file->sync());
  ASSERT_TRUE(storage_->open("f99", OpenMode::kCreate));
  EXPECT_LE(open_descriptors(), kLimit + 1);
}

TEST_F(OpenFilesTest, F20_DescriptorsOfDroppedFilesAreClosed) {
  make(3, false);
  EXPECT_EQ(open_descriptors(), 0u);
}

TEST_F(OpenFilesTest, F20_DurableWritesToManyFiles) {
  const auto files = make(12);
  Blocks blocks(1, 'd');
  std::mutex mutex;
  std::condition_variable changed;
  size_t ended = 0;
  for (int round = 0; round < 5; round++) {
    for (const auto& file : files) {
      file->write_durably(0, blocks.bytes(), [&](const Status& status) {
        EXPECT_TRUE(status);
        const std::lock_guard lock(mutex);
        ended++;
        changed.notify_all();
      });
    }
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return ended == 5 * files.size(); });
  lock.unlock();
  for (const auto& file : files) EXPECT_EQ(text(*file), std::string(20, 'd'));
  // Two for each that was written to; the writer's four threads may still have theirs in hand.
  ASSERT_TRUE(storage_->open("f99", OpenMode::kCreate));
  EXPECT_LE(open_descriptors(), 2 * (kLimit + 4));
}

TEST_F(OpenFilesTest, F20_ThreadsReadWhileFilesCloseAndGo) {
  const auto files = make(16);
  std::atomic<bool> wrong{false};
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < 2000; i++) {
        const size_t which = (i * 7 + t * 5) % files.size();
        if (text(*files[which]) != "f" + std::to_string(which)) wrong = true;
        if (t == 0 && i % 100 == 99 && i / 100 < files.size() &&
            !storage_->remove("f" + std::to_string(i / 100))) {
          wrong = true;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(wrong);
}

}  // namespace
}  // namespace valfs::storage
