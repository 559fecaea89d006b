// The storage on real files, with io_uring and with its fallback.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/storage/kernel_storage.h"
#include "tests/support/blocks.h"

namespace valfs::storage {
namespace {

using test::Blocks;
using test::bytes_of;

// A fresh directory, gone with its owner.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::string& parent) : path_(parent + "/valfs-test-XXXXXX") {
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::string on_disk() {
  const char* chosen = std::getenv("TMPDIR");
  return chosen != nullptr ? chosen : "/var/tmp";
}

// Counts completions, and keeps the last failure.
class Outcomes {
 public:
  File::Completion next() {
    return [this](const Status& status) {
      std::lock_guard guard(mutex_);
      ++count_;
      if (!status) failure_ = status.error();
      changed_.notify_all();
    };
  }
  void wait_for(Storage& storage, size_t count) {
    std::unique_lock lock(mutex_);
    storage.wait(lock, changed_, [&] { return count_ >= count; });
  }
  size_t count() {
    std::lock_guard guard(mutex_);
    return count_;
  }
  int failure() {
    std::lock_guard guard(mutex_);
    return failure_.code;
  }
  std::string failure_text() {
    std::lock_guard guard(mutex_);
    return failure_.what;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t count_ = 0;
  Error failure_{0, ""};
};

std::string read_text(File& file, uint64_t offset, size_t length) {
  std::string text(length, '?');
  const auto count = file.read(offset, std::as_writable_bytes(std::span(text)));
  if (!count) return "error: " + count.error().what;
  return text.substr(0, *count);
}

bool mentions(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// With true: io_uring.
class KernelStorageTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    storage_ = open();
    if (GetParam() && storage_->description() != "io_uring")
      GTEST_SKIP() << storage_->description();
  }

  std::unique_ptr<Storage> open(const std::string& staging = "") const {
    auto storage = open_kernel_storage({directory_.path(), staging, GetParam(), 8});
    if (!storage) std::abort();
    return std::move(*storage);
  }
  std::shared_ptr<File> create(const std::string& path) {
    auto file = storage_->open(path, OpenMode::kCreate);
    if (!file) std::abort();
    return *file;
  }
  std::string at(const std::string& path) const { return directory_.path() + "/" + path; }

  // Runs `body` in another process. This one has no storage meanwhile: a process with threads
  // forks badly.
  template <class Body>
  pid_t start_process(Body body) {
    storage_.reset();
    const pid_t child = ::fork();
    if (child == 0) {
      body();
      ::_exit(1);
    }
    storage_ = open();
    return child;
  }

  // Runs `body` in a process that kills itself afterwards, as kill -9 would.
  template <class Body>
  void run_and_kill(Body body) {
    const pid_t child = start_process([&] {
      body();
      ::raise(SIGKILL);
    });
    int status = 0;
    EXPECT_EQ(child, ::waitpid(child, &status, 0));
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "child failed: " << status;
  }

  const TemporaryDirectory directory_{on_disk()};
  std::unique_ptr<Storage> storage_;
};

INSTANTIATE_TEST_SUITE_P(, KernelStorageTest, testing::Bool(),
                         [](const auto& test) { return test.param ? "ring" : "threads"; });

TEST_P(KernelStorageTest, SaysHowItWrites) {
  EXPECT_EQ(storage_->description(), GetParam() ? "io_uring" : "pwritev2 (io_uring: not wanted)");
}

TEST_P(KernelStorageTest, ReadsWhatWasWritten) {
  auto file = create("a");
  ASSERT_TRUE(file->write(3, bytes_of("hello")));
  EXPECT_EQ(read_text(*file, 3, 5), "hello");
  EXPECT_EQ(read_text(*file, 0, 4), std::string("\0\0\0h", 4));
  EXPECT_EQ(file->info()->size, 8u);
  ASSERT_TRUE(file->sync());
}

TEST_P(KernelStorageTest, ReadIsShortOnlyAtTheEnd) {
  auto file = create("a");
  ASSERT_TRUE(file->write(0, bytes_of("hello")));
  EXPECT_EQ(read_text(*file, 2, 100), "llo");
  EXPECT_EQ(read_text(*file, 5, 100), "");
  EXPECT_EQ(read_text(*file, 1000, 100), "");
}

TEST_P(KernelStorageTest, WritesDurably) {
  auto file = create("a");
  Blocks blocks(4, 'x');
  Outcomes outcomes;
  file->write_durably(kBlockSize, blocks.bytes(), outcomes.next());
  outcomes.wait_for(*storage_, 1);
  ASSERT_EQ(outcomes.failure(), 0) << outcomes.failure_text();
  EXPECT_EQ(file->info()->size, 5 * kBlockSize);
  EXPECT_EQ(read_text(*file, kBlockSize, 4 * kBlockSize), std::string(4 * kBlockSize, 'x'));
}

TEST_P(KernelStorageTest, WritesNothingDurably) {
  auto file = create("a");
  Outcomes outcomes;
  file->write_durably(0, {}, outcomes.next());
  outcomes.wait_for(*storage_, 1);
  EXPECT_EQ(outcomes.failure(), 0);
  EXPECT_EQ(file->info()->size, 0u);
}

TEST_P(KernelStorageTest, SeesDurableAndOrdinaryWritesOfOneFile) {
  auto file = create("a");
  Blocks blocks(1, 'd');
  for (int round = 0; round < 20; ++round) {
    const std::string before(kBlockSize, static_cast<char>('a' + round));
    ASSERT_TRUE(file->write(0, bytes_of(before)));
    EXPECT_EQ(read_text(*file, 0, kBlockSize), before);
    Outcomes outcomes;
    file->write_durably(0, blocks.bytes(), outcomes.next());
    outcomes.wait_for(*storage_, 1);
    EXPECT_EQ(read_text(*file, 0, kBlockSize), std::string(kBlockSize, 'd'));
  }
}

// More writes than the ring has room for, from several threads that end before their writes do.
TEST_P(KernelStorageTest, ManyWritesUnderWay) {
  constexpr size_t kThreads = 4;
  constexpr size_t kWrites = 100;
  auto file = create("a");
  std::vector<Blocks> blocks;
  for (size_t i = 0; i < kThreads; ++i) blocks.emplace_back(2, static_cast<char>('a' + i));
  Outcomes outcomes;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (size_t n = 0; n < kWrites; ++n)
        file->write_durably((n * kThreads + i) * 2 * kBlockSize, blocks[i].bytes(),
                            outcomes.next());
    });
  }
  for (std::thread& thread : threads) thread.join();
  outcomes.wait_for(*storage_, kThreads * kWrites);
  ASSERT_EQ(outcomes.failure(), 0) << outcomes.failure_text();
  for (size_t n = 0; n < kThreads * kWrites; ++n) {
    const std::string expected(2 * kBlockSize, static_cast<char>('a' + n % kThreads));
    ASSERT_EQ(read_text(*file, n * 2 * kBlockSize, 2 * kBlockSize), expected) << n;
  }
}

TEST_P(KernelStorageTest, CompletionMayStartTheNextWrite) {
  auto file = create("a");
  Blocks blocks(1, 'x');
  Outcomes outcomes;
  std::function<void(uint64_t)> start = [&](uint64_t block) {
    file->write_durably(block * kBlockSize, blocks.bytes(), [&, block](const Status& status) {
      if (block < 50) start(block + 1);
      outcomes.next()(status);
    });
  };
  start(0);
  outcomes.wait_for(*storage_, 51);
  EXPECT_EQ(outcomes.failure(), 0) << outcomes.failure_text();
  EXPECT_EQ(file->info()->size, 51 * kBlockSize);
}

TEST_P(KernelStorageTest, DestructionWaitsForWrites) {
  Blocks blocks(1, 'x');
  Outcomes outcomes;
  auto file = create("a");
  for (uint64_t i = 0; i < 100; ++i)
    file->write_durably(i * kBlockSize, blocks.bytes(), outcomes.next());
  file.reset();  // a write keeps what it needs
  storage_.reset();
  EXPECT_EQ(outcomes.count(), 100u);
  EXPECT_EQ(outcomes.failure(), 0) << outcomes.failure_text();
}

TEST_P(KernelStorageTest, DurableWriteFollowsARenamedFile) {
  auto file = create("a");
  ASSERT_TRUE(storage_->rename("a", "b"));
  create("a");
  Blocks blocks(1, 'x');
  Outcomes outcomes;
  file->write_durably(0, blocks.bytes(), outcomes.next());
  outcomes.wait_for(*storage_, 1);
  ASSERT_EQ(outcomes.failure(), 0) << outcomes.failure_text();
  EXPECT_EQ(std::filesystem::file_size(at("b")), kBlockSize);
  EXPECT_EQ(std::filesystem::file_size(at("a")), 0u);
}

TEST_P(KernelStorageTest, FailedDurableWriteNamesTheFile) {
  auto file = create("a");
  auto reader = storage_->open("a", OpenMode::kRead);
  ASSERT_TRUE(reader);
  Blocks blocks(1, 'x');
  Outcomes read_only;
  (*reader)->write_durably(0, blocks.bytes(), read_only.next());
  read_only.wait_for(*storage_, 1);
  EXPECT_EQ(read_only.failure(), EBADF);

  // A limit on the size of files: a failure that root meets too.
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{kBlockSize, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  Outcomes outcomes;
  file->write_durably(4 * kBlockSize, blocks.bytes(), outcomes.next());
  outcomes.wait_for(*storage_, 1);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(outcomes.failure(), EFBIG);
  EXPECT_TRUE(mentions(outcomes.failure_text(), at("a"))) << outcomes.failure_text();
}

TEST_P(KernelStorageTest, OpenModes) {
  EXPECT_EQ(storage_->open("a", OpenMode::kRead).error().code, ENOENT);
  EXPECT_EQ(storage_->open("a", OpenMode::kReadWrite).error().code, ENOENT);
  create("a");
  EXPECT_EQ(storage_->open("a", OpenMode::kCreate).error().code, EEXIST);
  auto reader = storage_->open("a", OpenMode::kRead);
  ASSERT_TRUE(reader);
  EXPECT_EQ((*reader)->write(0, bytes_of("x")).error().code, EBADF);
  ASSERT_TRUE(storage_->make_directory("d"));
  EXPECT_EQ(storage_->open("d", OpenMode::kRead).error().code, EISDIR);
  std::filesystem::create_symlink("a", at("link"));
  EXPECT_EQ(storage_->open("link", OpenMode::kReadWrite).error().code, ELOOP);
}

TEST_P(KernelStorageTest, WhatItMakesIsPrivate) {
  create("a");
  ASSERT_TRUE(storage_->make_directory("d"));
  ASSERT_TRUE(storage_->make_staging("s", kBlockSize));
  const auto mode = [&](const std::string& path) {
    struct stat found {};
    return ::stat(at(path).c_str(), &found) == 0 ? found.st_mode & 07777 : 0;
  };
  EXPECT_EQ(mode("a"), 0600u);
  EXPECT_EQ(mode("d"), 0700u);
  EXPECT_EQ(mode("staging"), 0700u);
  EXPECT_EQ(mode("staging/s"), 0600u);
}

TEST_P(KernelStorageTest, ListIsSorted) {
  ASSERT_TRUE(storage_->make_directory("d"));
  for (const char* name : {"d/c", "d/a", "d/b", "d/.hidden"}) create(name);
  EXPECT_EQ(*storage_->list("d"), (std::vector<std::string>{".hidden", "a", "b", "c"}));
  EXPECT_EQ(*storage_->list(""), std::vector<std::string>{"d"});
  EXPECT_EQ(storage_->list("none").error().code, ENOENT);
}

TEST_P(KernelStorageTest, DirectoriesRenameAndRemove) {
  ASSERT_TRUE(storage_->make_directory("d"));
  ASSERT_TRUE(storage_->make_directory("d"));
  ASSERT_TRUE(create("d/a")->write(0, bytes_of("new")));
  ASSERT_TRUE(create("b")->write(0, bytes_of("old")));
  EXPECT_EQ(storage_->make_directory("b").error().code, EEXIST);
  ASSERT_TRUE(storage_->rename("d/a", "b"));
  ASSERT_TRUE(storage_->sync_directory("d"));
  ASSERT_TRUE(storage_->sync_directory(""));
  EXPECT_EQ(read_text(**storage_->open("b", OpenMode::kRead), 0, 10), "new");
  EXPECT_TRUE(storage_->remove("d"));
  EXPECT_TRUE(storage_->remove("b"));
  EXPECT_EQ(storage_->list("")->size(), 0u);
}

TEST_P(KernelStorageTest, ErrorsNameTheFile) {
  const auto names = [&](const std::string& what) { return mentions(what, at("none")); };
  EXPECT_TRUE(names(storage_->open("none", OpenMode::kRead).error().what));
  EXPECT_TRUE(names(storage_->remove("none").error().what));
  EXPECT_TRUE(names(storage_->rename("none", "b").error().what));
  EXPECT_TRUE(names(storage_->sync_directory("none").error().what));
  EXPECT_TRUE(names(storage_->list("none").error().what));
  EXPECT_TRUE(names(storage_->make_directory("none/x").error().what));
  const auto missing = open_kernel_storage({at("none"), "", GetParam(), 8});
  EXPECT_TRUE(names(missing.error().what)) << missing.error().what;
}

TEST_P(KernelStorageTest, PunchGivesSpaceBack) {
  constexpr size_t kSize = 1 << 20;
  auto file = create("a");
  ASSERT_TRUE(file->write(0, bytes_of(std::string(kSize, 'x'))));
  ASSERT_TRUE(file->sync());
  EXPECT_GE(file->info()->allocated, kSize);
  ASSERT_TRUE(file->punch(0, kSize));
  ASSERT_TRUE(file->punch(0, 0));
  EXPECT_LT(file->info()->allocated, kSize / 2);
  EXPECT_EQ(file->info()->size, kSize);
  EXPECT_EQ(read_text(*file, 0, kSize), std::string(kSize, '\0'));
  ASSERT_TRUE(file->resize(10));
  EXPECT_EQ(file->info()->size, 10u);
}

TEST_P(KernelStorageTest, SpaceIsThatOfTheFileSystem) {
  const auto space = storage_->space();
  ASSERT_TRUE(space);
  EXPECT_GT(space->available, 0u);
  EXPECT_LE(space->available, space->total);
}

TEST_P(KernelStorageTest, BootIdStays) {
  EXPECT_EQ(storage_->boot_id().size(), 36u);
  EXPECT_EQ(storage_->boot_id(), open()->boot_id());
}

TEST_P(KernelStorageTest, LockIsExclusive) {
  auto lock = storage_->lock();
  ASSERT_TRUE(lock) << lock.error().what;
  auto other = open();
  EXPECT_EQ(other->lock().error().code, EBUSY);
  lock->reset();  // although the ring still has the file open
  auto second = other->lock();
  ASSERT_TRUE(second) << second.error().what;
  second->reset();
  EXPECT_TRUE(storage_->lock());
}

TEST_P(KernelStorageTest, LockNamesItsHolder) {
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  const pid_t child = start_process([&] {
    auto theirs = open();
    auto lock = theirs->lock();
    if (lock && ::write(ready[1], "x", 1) == 1) ::pause();
  });
  char byte = 0;
  ::close(ready[1]);
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  const auto refused = storage_->lock();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EBUSY);
  const std::string expected =
      directory_.path() + " is in use by process " + std::to_string(child) + " (";
  EXPECT_TRUE(mentions(refused.error().what, expected)) << refused.error().what;

  // Not even waited for, a dead holder is none.
  ::kill(child, SIGKILL);
  const auto lock = storage_->lock();
  EXPECT_TRUE(lock) << lock.error().what;
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
}

TEST_P(KernelStorageTest, LockOfAKilledWriterComesFree) {
  run_and_kill([&] {
    auto theirs = open();
    auto lock = theirs->lock();
    auto file = theirs->open("a", OpenMode::kCreate);
    if (!lock || !file) ::_exit(1);
    Blocks blocks(256, 'x');
    for (uint64_t i = 0; i < 16; ++i)
      (*file)->write_durably(i * 256 * kBlockSize, blocks.bytes(), [](const Status&) {});
    ::raise(SIGKILL);
  });
  const auto lock = storage_->lock();
  ASSERT_TRUE(lock) << lock.error().what;
  // Nobody else writes now: the file no longer changes.
  auto file = storage_->open("a", OpenMode::kRead);
  ASSERT_TRUE(file);
  const uint64_t size = (*file)->info()->size;
  ::usleep(50'000);
  EXPECT_EQ((*file)->info()->size, size);
}

TEST_P(KernelStorageTest, StagingSurvivesTheProcess) {
  constexpr uint64_t kSize = 16 * kBlockSize;
  const std::string staging = at("made/on/demand");
  run_and_kill([&] {
    auto theirs = open(staging);
    auto memory = theirs->make_staging("slots", kSize);
    if (!memory || (*memory)->bytes()[0] != std::byte{0}) ::_exit(1);
    std::memset((*memory)->bytes().data(), 'x', kSize);
  });
  auto storage = open(staging);
  auto memory = storage->find_staging("slots");
  ASSERT_TRUE(memory) << memory.error().what;
  ASSERT_EQ((*memory)->bytes().size(), kSize);
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*memory)->bytes().data()) % kBlockSize, 0u);
  for (const std::byte byte : (*memory)->bytes()) ASSERT_EQ(byte, std::byte{'x'});
}

TEST_P(KernelStorageTest, StagingOnTmpfs) {
  if (::access("/dev/shm", W_OK) != 0) GTEST_SKIP() << "no /dev/shm to write to";
  const TemporaryDirectory shared("/dev/shm");
  auto storage = open(shared.path());
  auto memory = storage->make_staging("slots", kBlockSize);
  ASSERT_TRUE(memory) << memory.error().what;
  (*memory)->bytes()[7] = std::byte{'x'};
  EXPECT_EQ((*storage->find_staging("slots"))->bytes()[7], std::byte{'x'});
  EXPECT_EQ(storage->make_staging("too much", uint64_t{1} << 46).error().code, ENOSPC);
  EXPECT_EQ(storage->find_staging("too much").error().code, ENOENT);
}

TEST_P(KernelStorageTest, StagingIsKeptUnlessItsSizeDiffers) {
  EXPECT_EQ(storage_->find_staging("s").error().code, ENOENT);
  EXPECT_TRUE(storage_->remove_staging("s"));
  (*storage_->make_staging("s", kBlockSize))->bytes()[0] = std::byte{1};
  EXPECT_EQ(storage_->find_staging("t").error().code, ENOENT);
  EXPECT_EQ((*storage_->make_staging("s", kBlockSize))->bytes()[0], std::byte{1});
  auto larger = storage_->make_staging("s", 2 * kBlockSize);
  ASSERT_TRUE(larger);
  EXPECT_EQ((*larger)->bytes().size(), 2 * kBlockSize);
  EXPECT_EQ((*larger)->bytes()[0], std::byte{0});
  EXPECT_TRUE(storage_->remove_staging("s"));
  EXPECT_EQ(storage_->find_staging("s").error().code, ENOENT);
}

TEST_P(KernelStorageTest, StagingThatCannotBeIsRefused) {
  EXPECT_EQ(storage_->make_staging("s", 100).error().code, EINVAL);
  EXPECT_EQ(storage_->make_staging("s", 0).error().code, EINVAL);
  EXPECT_EQ(storage_->make_staging("../s", kBlockSize).error().code, EINVAL);
  ASSERT_TRUE(storage_->make_staging("s", kBlockSize));
  for (const uint64_t size : {uint64_t{0}, kBlockSize + 1}) {
    std::filesystem::resize_file(at("staging/s"), size);
    const auto memory = storage_->find_staging("s");
    ASSERT_FALSE(memory);
    EXPECT_EQ(memory.error().code, EINVAL);
    EXPECT_TRUE(mentions(memory.error().what, at("staging/s"))) << memory.error().what;
  }
}

TEST_P(KernelStorageTest, ForeignStagingDirectoryIsRefused) {
  std::filesystem::create_directory(at("open"));
  std::filesystem::permissions(at("open"), std::filesystem::perms::all);
  EXPECT_EQ(open(at("open"))->make_staging("s", kBlockSize).error().code, EPERM);
  std::filesystem::create_directory(at("mine"));
  std::filesystem::create_directory_symlink("mine", at("link"));
  EXPECT_FALSE(open(at("link"))->make_staging("s", kBlockSize));
}

}  // namespace
}  // namespace valfs::storage
