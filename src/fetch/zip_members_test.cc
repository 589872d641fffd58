#include "src/fetch/zip_members.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "src/base/temp_dir.h"
#include "src/fetch/test_zip.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class ZipMembersTest : public testing::Test {
 protected:
  Status Extract(const std::vector<std::string>& names, const ZipLimits& limits = {}) {
    std::vector<ZipMember> members;
    for (const std::string& name : names) members.push_back({name, Target(name)});
    return ExtractZipMembers(archive_, members, limits, nullptr);
  }
  fs::path Target(const std::string& name) const { return dir_.path() / fs::path(name).filename(); }
  /// Files of the folder, but for the archive.
  int64_t Files() const { return std::distance(fs::recursive_directory_iterator(dir_.path()), {}) - 1; }

  TempDir dir_;
  fs::path archive_ = dir_.path() / "a.zip";
};

TEST_F(ZipMembersTest, ExtractsWhatIsAskedForAndNothingElse) {
  const std::string long_text(700'000, 'x');
  WriteTestZip(archive_, {{"data/a.jsonl", "one\n"},
                          {"../../escape.jsonl", "up"},
                          {"/tmp/absolute.jsonl", "root"},
                          {"data/b.jsonl", long_text},
                          {"data/empty.jsonl", ""},
                          {"data/c.jsonl", "not asked for"}});
  const Status status = Extract({"data/b.jsonl", "data/a.jsonl", "data/empty.jsonl"});
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(ReadTestFile(Target("a.jsonl")), "one\n");
  EXPECT_EQ(ReadTestFile(Target("b.jsonl")), long_text);
  EXPECT_EQ(ReadTestFile(Target("empty.jsonl")), "");
  EXPECT_EQ(Files(), 3);
  EXPECT_FALSE(fs::exists(dir_.path().parent_path() / "escape.jsonl"));
}

TEST_F(ZipMembersTest, HostileMembersAreRefused) {
  WriteTestZip(archive_,
               {{"link.jsonl", "/etc/passwd"}, {"twice.jsonl", "a"}, {"twice.jsonl", "b"}, {"locked.jsonl", "abc"}},
               "link.jsonl", "locked.jsonl");
  ReplaceInFile(archive_, std::string(11, '~'), "twice.jsonl");
  for (const auto& [name, says] :
       std::vector<std::pair<std::string, std::string>>{{"link.jsonl", "link.jsonl is no regular file"},
                                                        {"twice.jsonl", "twice.jsonl more than once"},
                                                        {"locked.jsonl", "locked.jsonl is encrypted"},
                                                        {"none.jsonl", "the archive has no none.jsonl"}}) {
    const Status status = Extract({name});
    EXPECT_EQ(status.code(), StatusCode::kCorruptData);
    EXPECT_THAT(status.message(), HasSubstr(says));
  }
  EXPECT_EQ(Files(), 0);
}

TEST_F(ZipMembersTest, BombsAreRefusedBeforeTheyAreWritten) {
  WriteTestZip(archive_, {{"a.jsonl", std::string(50'000, '0')}, {"b.jsonl", std::string(50'000, '0')}});
  EXPECT_THAT(Extract({"a.jsonl"}, {.member_bytes = 49'999}).message(), HasSubstr("more than is unpacked"));
  EXPECT_EQ(Files(), 0);
  EXPECT_THAT(Extract({"a.jsonl", "b.jsonl"}, {.total_bytes = 99'999}).message(), HasSubstr("b.jsonl would be 50000"));
  EXPECT_THAT(Extract({"a.jsonl"}, {.members = 1}).message(), HasSubstr("lists 2 members"));
  EXPECT_TRUE(Extract({"a.jsonl", "b.jsonl"}, {.member_bytes = 50'000, .total_bytes = 100'000}).ok());
}

TEST_F(ZipMembersTest, ALengthThatIsNotTrueIsFound) {
  WriteTestZip(archive_, {{"a.jsonl", std::string(50'000, '0')}});
  // The length stands in both headers, little-endian. What it is changed to passes the limits.
  ReplaceInFile(archive_, std::string("\x50\xc3\x00\x00", 4), std::string("\x10\x00\x00\x00", 4));
  const Status status = Extract({"a.jsonl"}, {.member_bytes = 1000});
  EXPECT_EQ(status.code(), StatusCode::kCorruptData) << status.message();
  EXPECT_EQ(Files(), 0);
}

TEST_F(ZipMembersTest, DamageAtAnyPlaceIsAnErrorOrChangesNothing) {
  const std::string text = "The river is long, and so is the road along it. It is 12,345 steps long.\n";
  WriteTestZip(archive_, {{"a.jsonl", text}, {"b.jsonl", "other"}});
  const std::string good = ReadTestFile(archive_);
  for (size_t length = 0; length < good.size(); ++length) {
    WriteTestFile(archive_, good.substr(0, length));
    EXPECT_FALSE(Extract({"a.jsonl"}).ok()) << "cut to " << length;
    EXPECT_EQ(Files(), 0) << length;
  }
  for (size_t at = 0; at < good.size(); ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(~bad[at]);
    WriteTestFile(archive_, bad);
    if (Extract({"a.jsonl"}).ok()) {
      EXPECT_EQ(ReadTestFile(Target("a.jsonl")), text) << "byte " << at;
    }
    fs::remove(Target("a.jsonl"));
    EXPECT_EQ(Files(), 0) << at;
  }
}

TEST_F(ZipMembersTest, AFullDiskAndACancelLeaveNothingHalf) {
  WriteTestZip(archive_, {{"a.jsonl", std::string(900'000, 'a')}});
  const std::atomic<bool> cancel{true};
  const ZipMember member{"a.jsonl", Target("a.jsonl")};
  EXPECT_EQ(ExtractZipMembers(archive_, {&member, 1}, {}, &cancel).code(), StatusCode::kCancelled);
  signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = 300'000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const Status full = Extract({"a.jsonl"});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  EXPECT_EQ(full.code(), StatusCode::kResourceExhausted) << full.message();
  EXPECT_EQ(Files(), 0);
  EXPECT_FALSE(ExtractZipMembers(dir_.path() / "none.zip", {&member, 1}, {}, nullptr).ok());
}

}  // namespace
}  // namespace loopserve
