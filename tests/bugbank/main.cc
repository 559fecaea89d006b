// Runs tests until the first failure, and says how many crashes of simulated disks that test had
// made by then. scripts/bugbank reads the line that begins with "bugbank:".
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "engine/storage/sim_disk.h"

namespace {

using valfs::storage::SimDisk;

std::string running;        // the test
uint64_t crashes_before{};  // it began

// What was found is found: nothing is tidied up, and nothing runs on in a broken engine.
[[noreturn]] void end(const char* how) {
  std::printf("\nbugbank: %s in %s after %lu cuts\n", how, running.c_str(),
              static_cast<unsigned long>(SimDisk::crashes() - crashes_before));
  std::fflush(stdout);
  _exit(1);
}

void on_signal(int) {
  end("aborted");
}

class FirstFailure : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo& test) override {
    running = std::string(test.test_suite_name()) + "." + test.name();
    crashes_before = SimDisk::crashes();
  }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    const char* file = result.file_name() != nullptr ? result.file_name() : "?";
    std::printf("%s:%d: %s", file, result.line_number(), result.message());
    end("failed");
  }
};

}  // namespace

int main(int count, char** arguments) {
  testing::InitGoogleTest(&count, arguments);
  testing::UnitTest::GetInstance()->listeners().Append(new FirstFailure);
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) std::signal(signal, on_signal);
  return RUN_ALL_TESTS();
}
