#include "src/fetch/pull.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "src/base/sha256.h"
#include "src/base/temp_dir.h"
#include "src/fetch/test_server.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class PullTest : public testing::Test {
 protected:
  PullRequest Request(const std::string& reference) {
    PullRequest request;
    request.reference = reference;
    request.cache_dir = dir_.path() / "cache";
    request.hub_endpoint = server_.Url("");
    request.hub_token = "secret";
    request.limits.first_backoff_ms = 1;
    return request;
  }

  TempDir dir_;
  std::string content_ = "GGUF" + std::string(50000, 'm');
  TestServer server_{[this](const TestServer::Request& request) {
    return ServeFile(request, content_, "\"" + Sha256Hex(content_) + "\"");
  }};
};

TEST_F(PullTest, AHubModelIsPulledOnceAndFoundAgain) {
  const std::string reference = "hf:Owner/Repo/model.gguf";
  EXPECT_THAT(FindPulledModel(reference, dir_.path() / "cache").status().message(),
              HasSubstr("loopserve pull " + reference));
  const Result<std::string> path = Pull(Request(reference));
  ASSERT_TRUE(path.ok()) << path.status().message();
  EXPECT_EQ(*path, (dir_.path() / "cache/models/hf/Owner/Repo/model.gguf").string());
  EXPECT_EQ(fs::file_size(*path), content_.size());
  EXPECT_EQ(*FindPulledModel(reference, dir_.path() / "cache"), *path);
  EXPECT_EQ(*Pull(Request(reference)), *path);
  ASSERT_EQ(server_.requests().size(), 1u);
  EXPECT_EQ(server_.requests()[0].target, "/Owner/Repo/resolve/main/model.gguf");
  EXPECT_EQ(server_.requests()[0].Header("authorization"), "Bearer secret");
}

TEST_F(PullTest, AUrlGetsNoToken) {
  const Result<std::string> path = Pull(Request(server_.Url("/x/other.gguf?sig=1")));
  ASSERT_TRUE(path.ok()) << path.status().message();
  EXPECT_EQ(fs::path(*path).filename(), "other.gguf");
  EXPECT_EQ(server_.requests()[0].Header("authorization"), "");
}

TEST_F(PullTest, HostileUrlNamesStayInTheCache) {
  for (const char* target : {"/..%2f..%2fescape", "/%2e%2e", "/a/%00%0a.gguf", "/"}) {
    const Result<std::string> path = Pull(Request(server_.Url(target)));
    ASSERT_TRUE(path.ok()) << target << path.status().message();
    const std::string inside = (dir_.path() / "cache/models/url/").string();
    EXPECT_EQ(fs::canonical(*path).string().substr(0, inside.size()), inside) << *path;
  }
}

TEST_F(PullTest, AGivenChecksumIsHeldAgainstTheDownloadAndTheCache) {
  PullRequest request = Request("hf:Owner/Repo/model.gguf");
  request.sha256 = "12";
  EXPECT_EQ(Pull(request).status().code(), StatusCode::kInvalidArgument);
  request.sha256 = std::string(64, 'A');
  EXPECT_EQ(Pull(request).status().code(), StatusCode::kCorruptData);
  request.sha256 = Sha256Hex(content_);
  ASSERT_TRUE(Pull(request).ok());
  request.sha256 = std::string(64, 'A');
  EXPECT_THAT(Pull(request).status().message(), HasSubstr("--force"));
}

TEST_F(PullTest, ForceReplacesADamagedModel) {
  PullRequest request = Request("hf:Owner/Repo/model.gguf");
  const std::string path = *Pull(request);
  std::ofstream(path, std::ios::binary) << "damaged";
  EXPECT_EQ(Pull(request).status().code(), StatusCode::kCorruptData);
  request.force = true;
  ASSERT_TRUE(Pull(request).ok());
  EXPECT_EQ(fs::file_size(path), content_.size());
}

TEST_F(PullTest, TwoPullsOfOneModelDownloadItOnce) {
  std::vector<std::thread> pulls;
  std::atomic<int> good{0};
  for (int i = 0; i < 4; ++i) {
    pulls.emplace_back([&] { good += Pull(Request("hf:Owner/Repo/model.gguf")).ok() ? 1 : 0; });
  }
  for (std::thread& pull : pulls) pull.join();
  EXPECT_EQ(good, 4);
  EXPECT_EQ(server_.requests().size(), 1u);
}

TEST_F(PullTest, AnUnwritableCacheIsAnError) {
  std::ofstream(dir_.path() / "plain") << "x";
  PullRequest request = Request("hf:Owner/Repo/model.gguf");
  request.cache_dir = dir_.path() / "plain" / "cache";
  const Status status = Pull(request).status();
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_THAT(status.message(), HasSubstr("plain/cache"));
}

}  // namespace
}  // namespace loopserve
