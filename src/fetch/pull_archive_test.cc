#include "src/fetch/pull_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/base/sha256.h"
#include "src/base/temp_dir.h"
#include "src/fetch/test_server.h"
#include "src/fetch/test_zip.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class PullArchiveTest : public testing::Test {
 protected:
  void SetUp() override {
    WriteTestZip(dir_.path() / "a.zip", {{"data/a.jsonl", std::string(30'000, 'a')},
                                         {"data/b.jsonl", "b\n"},
                                         {"data/other.jsonl", "other"},
                                         {"../up.jsonl", "up"}});
    content_ = ReadTestFile(dir_.path() / "a.zip");
  }

  ArchivePull Request() {
    ArchivePull request;
    request.name = "bench";
    request.url = server_.Url("/x/data.zip");
    request.members = {"data/a.jsonl", "data/b.jsonl"};
    request.cache_dir = dir_.path() / "cache";
    request.hub_endpoint = server_.Url("/");
    request.hub_token = "secret";
    request.limits.first_backoff_ms = 1;
    request.limits.max_attempts = 3;
    return request;
  }
  fs::path Folder() const { return dir_.path() / "cache" / "bench"; }

  TempDir dir_;
  std::string content_;
  TestServer server_{[this](const TestServer::Request& request) {
    return ServeFile(request, content_, "\"" + Sha256Hex(content_) + "\"");
  }};
};

TEST_F(PullArchiveTest, UnpacksWhatIsWantedOnceAndRemovesTheArchive) {
  std::vector<PullStage> stages;
  const auto folder = PullArchive(Request(), [&](const PullProgress& progress) { stages.push_back(progress.stage); });
  ASSERT_TRUE(folder.ok()) << folder.status().message();
  EXPECT_EQ(*folder, Folder().string());
  EXPECT_EQ(ReadTestFile(Folder() / "data/a.jsonl"), std::string(30'000, 'a'));
  EXPECT_EQ(ReadTestFile(Folder() / "data/b.jsonl"), "b\n");
  EXPECT_EQ(std::distance(fs::recursive_directory_iterator(Folder()), {}), 3) << "data/ and its two files";
  EXPECT_EQ(stages.back(), PullStage::kUnpacking);
  EXPECT_TRUE(PullArchive(Request()).ok());
  EXPECT_EQ(server_.requests().size(), 1u) << "what is there is not downloaded again";
  fs::remove(Folder() / "data/b.jsonl");
  EXPECT_TRUE(PullArchive(Request()).ok());
  EXPECT_TRUE(fs::exists(Folder() / "data/b.jsonl"));
  ArchivePull again = Request();
  again.force = true;
  EXPECT_TRUE(PullArchive(again).ok());
  EXPECT_EQ(server_.requests().size(), 3u);
  EXPECT_EQ(server_.requests()[0].Header("authorization"), "") << "the token is the hub's";
}

TEST_F(PullArchiveTest, TheHubsChecksumHolds) {
  ArchivePull request = Request();
  request.url = "/datasets/O/R/resolve/main/data.zip";
  ASSERT_TRUE(PullArchive(request).ok());
  EXPECT_EQ(server_.requests()[0].target, request.url);
  EXPECT_EQ(server_.requests()[0].Header("authorization"), "Bearer secret");
  request.force = true;
  request.sha256 = std::string(64, '0');
  EXPECT_THAT(PullArchive(request).status().message(), HasSubstr("wrong checksum"));
  request.sha256 = "abc";
  EXPECT_EQ(PullArchive(request).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(PullArchiveTest, ACutDownloadGoesOn) {
  bool cut = true;
  TestServer server([&](const TestServer::Request& request) {
    const std::string answer = ServeFile(request, content_, "\"v1\"");
    return std::exchange(cut, false) ? answer.substr(0, answer.size() - 100) : answer;
  });
  ArchivePull request = Request();
  request.url = server.Url("/data.zip");
  const auto folder = PullArchive(request);
  ASSERT_TRUE(folder.ok()) << folder.status().message();
  ASSERT_EQ(server.requests().size(), 2u);
  EXPECT_NE(server.requests()[1].Header("range"), "");
}

TEST_F(PullArchiveTest, WhatIsNoArchiveOrADamagedOneIsSaidAndDeleted) {
  content_ = "<html>log in</html>";
  EXPECT_THAT(PullArchive(Request()).status().message(), HasSubstr("data.zip is not a zip archive"));
  SetUp();
  content_.resize(content_.size() / 2);
  const Status truncated = PullArchive(Request()).status();
  EXPECT_EQ(truncated.code(), StatusCode::kCorruptData);
  EXPECT_THAT(truncated.message(), HasSubstr("data.zip: cannot open the archive: "));
  EXPECT_FALSE(fs::exists(Folder() / "archive.zip"));
  SetUp();
  ArchivePull request = Request();
  request.members.push_back("data/missing.jsonl");
  EXPECT_THAT(PullArchive(request).status().message(), HasSubstr("the archive has no data/missing.jsonl"));
}

TEST_F(PullArchiveTest, AnArchiveIsKeptWhenUnpackingEndsEarly) {
  ArchivePull request = Request();
  std::atomic<bool> cancel{false};
  request.cancel = &cancel;
  const auto stop = [&](const PullProgress& progress) { cancel = progress.stage == PullStage::kUnpacking; };
  EXPECT_EQ(PullArchive(request, stop).status().code(), StatusCode::kCancelled);
  EXPECT_TRUE(fs::exists(Folder() / "archive.zip"));
  cancel = false;
  EXPECT_TRUE(PullArchive(request).ok());
  EXPECT_EQ(server_.requests().size(), 1u);
}

TEST_F(PullArchiveTest, WithoutANetworkTheErrorSaysSo) {
  ArchivePull request = Request();
  {
    TestServer gone([](const auto&) { return std::string(); });
    request.url = gone.Url("/data.zip");
  }
  const Status status = PullArchive(request).status();
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_THAT(status.message(), HasSubstr("127.0.0.1"));
  EXPECT_THAT(status.message(), HasSubstr("gave up after 3 attempts"));
  request.url = "ftp://host/data.zip";
  EXPECT_EQ(PullArchive(request).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace loopserve
