#include "fs/mount_options.h"

#include <gtest/gtest.h>

#include <limits>

namespace valfs::fs {
namespace {

using std::chrono_literals::operator""ms;
using std::chrono_literals::operator""s;

constexpr bool kRoot = true;
constexpr bool kUser = false;

MountOptions parse(const std::string& list, bool by_root = kRoot) {
  auto options = parse_mount_options({list}, by_root);
  EXPECT_TRUE(options) << list << ": " << (options ? "" : options.error().what);
  return options.value_or(MountOptions{});
}

std::string error_of(const std::string& list, bool by_root = kRoot) {
  const auto options = parse_mount_options({list}, by_root);
  if (options) return "";
  EXPECT_EQ(options.error().code, EINVAL);
  return options.error().what;
}

::testing::AssertionResult says(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "\"" << text << "\" does not say \"" << part << "\"";
}

TEST(MountOptions, HaveDefaults) {
  const MountOptions options = parse("");
  EXPECT_EQ(options.size, 0u);
  EXPECT_EQ(options.cache, 64 * kMiB);
  EXPECT_EQ(options.log_file, 512 * kMiB);
  EXPECT_EQ(options.commit, 100ms);
  EXPECT_EQ(options.stop_timeout, 10s);
  EXPECT_EQ(options.log, "");
  EXPECT_EQ(options.text, "");
}

TEST(MountOptions, ReadSizesAndTimes) {
  const MountOptions options =
      parse("size=3g,cache=1048576,log_file=16M,commit=60000,stop_timeout=0");
  EXPECT_EQ(options.size, 3 * 1024 * kMiB);
  EXPECT_EQ(options.cache, kMiB);
  EXPECT_EQ(options.log_file, 16 * kMiB);
  EXPECT_EQ(options.commit, 60'000ms);
  EXPECT_EQ(options.stop_timeout, 0s);
  EXPECT_EQ(parse("size=2T").size, 2 * kMiB * kMiB);
  EXPECT_EQ(parse("cache=7k").cache, 7 * kKiB);
  EXPECT_EQ(parse("cache=0").cache, 0u);
}

TEST(MountOptions, F38_ReadCompression) {
  EXPECT_EQ(parse("").compression, Compression::kNone);
  EXPECT_EQ(parse("compress=lz4").compression, Compression::kLz4);
  EXPECT_EQ(parse("compress=zstd").compression, Compression::kZstd);
  EXPECT_EQ(parse("compress=lz4,compress=none").compression, Compression::kNone);
  EXPECT_TRUE(says(error_of("compress=gzip"), "option compress: must be none, lz4 or zstd"));
  EXPECT_TRUE(says(error_of("compress"), "option compress needs a value: compress=none|lz4|zstd"));
}

TEST(MountOptions, RefuseBadValuesByName) {
  for (const char* list : {"size=", "size=x", "size=1.5g", "size=-1", "size=g", "size=10mb",
                           "size= 1g", "size=99999999999999999999", "size=17179869184g"}) {
    EXPECT_TRUE(says(error_of(list), "option size")) << list;
  }
  EXPECT_TRUE(says(error_of("size=1m"), "at least 16m"));
  EXPECT_TRUE(says(error_of("log_file=15m"), "option log_file: must be at least 16m"));
  EXPECT_TRUE(says(error_of("log_file=17g"), "at most 16g"));
  EXPECT_TRUE(says(error_of("commit=0"), "from 1 to 60000"));
  EXPECT_TRUE(says(error_of("commit=60001"), "option commit"));
  EXPECT_TRUE(says(error_of("commit=100ms"), "not a whole number"));
  EXPECT_TRUE(says(error_of("stop_timeout=soon"), "option stop_timeout"));
  EXPECT_TRUE(says(error_of("log=relative/file"), "option log"));
  EXPECT_TRUE(says(error_of("fsname="), "option fsname"));
}

TEST(MountOptions, WantOrRefuseValues) {
  EXPECT_TRUE(says(error_of("size"), "option size needs a value: size=BYTES"));
  EXPECT_TRUE(says(error_of("private=yes"), "option private takes no value"));
  EXPECT_TRUE(says(error_of("private="), "takes no value"));
}

TEST(MountOptions, NameUnknownOnesAndSuggest) {
  EXPECT_TRUE(says(error_of("sise=1g"), "unknown option \"sise\"; did you mean \"size\"?"));
  EXPECT_TRUE(says(error_of("allowother"), "did you mean \"allow_other\"?"));
  EXPECT_TRUE(says(error_of("comit=5"), "did you mean \"commit\"?"));
  EXPECT_TRUE(says(error_of("stop=5"), "did you mean \"stop_timeout\"?"));
  EXPECT_TRUE(says(error_of("frobnicate"), "unknown option \"frobnicate\"; valfs mount --help"));
  EXPECT_TRUE(says(error_of("cache=1g,wrong-thing=3,commit=5"), "\"wrong-thing\""));
  EXPECT_TRUE(says(error_of("=5"), "unknown option"));
}

TEST(MountOptions, PassOverUnknownOnesIfAsked) {
  const auto options = parse_mount_options({"wrong=1,cache=1g"}, kRoot, UnknownOptions::kIgnore);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->cache, 1024 * kMiB);
  EXPECT_FALSE(parse_mount_options({"cache=x"}, kRoot, UnknownOptions::kIgnore))
      << "a known one must still be right";
}

TEST(MountOptions, TakeUnderscoreForHyphen) {
  EXPECT_EQ(parse("stop-timeout=3").stop_timeout, 3s);
  EXPECT_EQ(parse("stop_timeout=3").stop_timeout, 3s);
  EXPECT_EQ(parse("log-file=1g").log_file, 1024 * kMiB);
  EXPECT_EQ(parse("fsname=a_b-c").fsname, "a_b-c") << "in names only";
}

TEST(MountOptions, LastOneCounts) {
  EXPECT_EQ(parse("commit=5,commit=7").commit, 7ms);
  const auto options = parse_mount_options({"commit=5,cache=1m", "commit=9"}, kRoot);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->commit, 9ms);
  EXPECT_EQ(options->cache, kMiB);
  EXPECT_EQ(options->text, "commit=5,cache=1m,commit=9");
  EXPECT_FALSE(parse("nosuid,suid").nosuid);
  EXPECT_TRUE(parse("dev,nodev").nodev);
}

TEST(MountOptions, PassOverEmptyItems) {
  EXPECT_EQ(parse(",,commit=5,,").commit, 5ms);
  EXPECT_EQ(parse(",").commit, 100ms);
}

TEST(MountOptions, UnescapeAndUnquote) {
  EXPECT_EQ(parse("fsname=a\\,b,commit=5").fsname, "a,b");
  EXPECT_EQ(parse("fsname=a\\,b,commit=5").commit, 5ms);
  EXPECT_EQ(parse("fsname=\"a,b\",commit=5").fsname, "a,b");
  EXPECT_EQ(parse("\"fsname=a,b\"").fsname, "a,b");
}

TEST(MountOptions, UnescapeInsideQuotes) {
  EXPECT_EQ(parse("fsname=\"a\\\"b\\\\c\"").fsname, "a\"b\\c");
  EXPECT_EQ(parse("fsname=a\\\"b").fsname, "a\"b");
  EXPECT_EQ(parse("fsname=x=y").fsname, "x=y");
  EXPECT_EQ(parse("fsname=one\" two, \"three").fsname, "one two, three");
}

TEST(MountOptions, RefuseUnfinishedGrammar) {
  EXPECT_TRUE(says(error_of("fsname=\"a,b"), "a quote is not closed"));
  EXPECT_TRUE(says(error_of("fsname=a\\"), "end in a backslash"));
}

TEST(MountOptions, SwallowWhatIsForFstab) {
  parse("defaults,nofail,user,users,nouser,_netdev,auto,noauto,rw,relatime,strictatime");
  parse(
      "x-systemd.requires-mounts-for=/var/"
      "lib,x-anything,comment=hello,user=joe,x-gvfs-name=\"a,b\"");
}

TEST(MountOptions, KeepFlagsForTheKernel) {
  const MountOptions options = parse("nosuid,nodev,noexec,noatime,sync,dirsync");
  EXPECT_TRUE(options.nosuid && options.nodev && options.noexec);
  EXPECT_TRUE(options.noatime && options.sync && options.dirsync);
  EXPECT_FALSE(parse("noexec,exec").noexec);
}

TEST(MountOptions, ByRootAreForEverybody) {
  const MountOptions options = parse("", kRoot);
  EXPECT_TRUE(options.allow_other && options.default_permissions);
  EXPECT_FALSE(options.is_private);
}

TEST(MountOptions, ByAUserArePrivate) {
  const MountOptions options = parse("", kUser);
  EXPECT_TRUE(options.is_private);
  EXPECT_FALSE(options.allow_other || options.default_permissions);
}

TEST(MountOptions, LetOthersInOnlyWithChecks) {
  const MountOptions options = parse("allow_other", kUser);
  EXPECT_TRUE(options.allow_other && options.default_permissions);
  EXPECT_FALSE(options.is_private);
  const MountOptions checked = parse("default_permissions", kUser);
  EXPECT_TRUE(checked.default_permissions);
  EXPECT_FALSE(checked.allow_other);
}

TEST(MountOptions, PrivateContradictsLettingOthersIn) {
  EXPECT_TRUE(parse("private", kRoot).is_private);
  EXPECT_FALSE(parse("private", kRoot).default_permissions);
  EXPECT_TRUE(says(error_of("private,allow_other"), "private and allow_other contradict"));
  EXPECT_TRUE(says(error_of("default_permissions,private"), "default_permissions contradict"));
}

TEST(MountOptions, RefuseWhatThisVersionCannot) {
  EXPECT_TRUE(says(error_of("ro"), "read-only mounts are not supported by this version"));
  EXPECT_TRUE(says(error_of("transport=carrier-pigeon"), "must be auto, uring or dev"));
  EXPECT_EQ(parse("").transport, Transport::kAuto);
  EXPECT_EQ(parse("transport=auto").transport, Transport::kAuto);
  EXPECT_EQ(parse("transport=uring").transport, Transport::kUring);
  EXPECT_EQ(parse("transport=dev").transport, Transport::kDev);
}

TEST(MountOptions, TellWhereToLog) {
  EXPECT_EQ(parse("log=journal").log, "journal");
  EXPECT_EQ(parse("log=stderr").log, "stderr");
  EXPECT_EQ(parse("log=/var/log/v.log").log, "/var/log/v.log");
}

TEST(MountOptions, AreAllInTheHelp) {
  const std::string help = describe_mount_options();
  for (const char* name :
       {"size=", "cache=", "commit=", "log_file=", "compress=", "stop_timeout=", "private",
        "allow_other", "default_permissions", "log=", "transport=", "fsname="})
    EXPECT_TRUE(says(help, std::string("  ") + name));
}

}  // namespace
}  // namespace valfs::fs
