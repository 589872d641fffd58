#include "src/fetch/download.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <chrono>
#include <fstream>
#include <iterator>

#include "src/base/sha256.h"
#include "src/base/temp_dir.h"
#include "src/fetch/test_server.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// A file that passes for a model: the magic, then bytes that are nowhere the same.
std::string ModelBytes(size_t size) {
  std::string bytes = "GGUF";
  uint32_t state = 1;
  while (bytes.size() < size) {
    state = state * 1664525 + 1013904223;
    bytes += static_cast<char>(state >> 24);
  }
  return bytes;
}

class DownloadTest : public testing::Test {
 protected:
  DownloadRequest Request(const TestServer& server, const std::string& target = "/m.gguf") {
    DownloadRequest request;
    request.url = *ParseUrl(server.Url(target));
    request.target = dir_.path() / "models" / "m.gguf";
    request.sha256 = Sha256Hex(content_);
    request.limits.timeouts = {2000, 2000};
    request.limits.first_backoff_ms = 1;
    request.limits.max_attempts = 4;
    return request;
  }
  fs::path Target() const { return dir_.path() / "models" / "m.gguf"; }
  fs::path Part() const { return dir_.path() / "models" / "m.gguf.part"; }
  static std::string ReadFile(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void ExpectWhole() {
    EXPECT_EQ(ReadFile(Target()), content_);
    EXPECT_FALSE(fs::exists(Part()));
    EXPECT_FALSE(fs::exists(Part().string() + ".meta"));
  }
  // The first `bytes` of the file are here from an earlier pull, which saw this ETag.
  void LeavePart(const TestServer& server, size_t bytes, const std::string& etag) {
    fs::create_directories(Target().parent_path());
    std::ofstream(Part(), std::ios::binary) << content_.substr(0, bytes);
    std::ofstream(Part().string() + ".meta") << "loopserve-part 1\nurl " << server.Url("/m.gguf") << "\nvalidator "
                                             << etag << "\ntotal " << content_.size() << "\n";
  }

  TempDir dir_;
  std::string content_ = ModelBytes(300000);
};

TEST_F(DownloadTest, BringsTheWholeFileAndReportsProgress) {
  TestServer server([&](const auto& request) { return ServeFile(request, content_, "\"v1\""); });
  std::vector<PullProgress> seen;
  const Status status = Download(Request(server), [&](const PullProgress& p) { seen.push_back(p); });
  ASSERT_TRUE(status.ok()) << status.message();
  ExpectWhole();
  ASSERT_GE(seen.size(), 3u);
  EXPECT_EQ(seen.front().stage, PullStage::kConnecting);
  EXPECT_EQ(seen.back().stage, PullStage::kVerifying);
  EXPECT_EQ(seen.back().received_bytes, static_cast<int64_t>(content_.size()));
  EXPECT_EQ(seen.back().total_bytes, static_cast<int64_t>(content_.size()));
}

TEST_F(DownloadTest, GoesOnAfterACutConnection) {
  TestServer server([&](const auto& request) {
    const std::string answer = ServeFile(request, content_, "\"v1\"");
    return request.Header("range").empty() ? answer.substr(0, 100000) : answer;
  });
  const Status status = Download(Request(server), {});
  ASSERT_TRUE(status.ok()) << status.message();
  ExpectWhole();
  ASSERT_EQ(server.requests().size(), 2u);
  EXPECT_THAT(server.requests()[1].Header("range"), HasSubstr("bytes=9"));
  EXPECT_EQ(server.requests()[1].Header("if-range"), "\"v1\"");
}

TEST_F(DownloadTest, GoesOnFromAnEarlierPull) {
  TestServer server([&](const auto& request) { return ServeFile(request, content_, "\"v1\""); });
  LeavePart(server, 123456, "\"v1\"");
  int64_t resumed = -1;
  ASSERT_TRUE(Download(Request(server), [&](const PullProgress& p) { resumed = p.resumed_bytes; }).ok());
  ExpectWhole();
  EXPECT_EQ(resumed, 123456);
  EXPECT_EQ(server.requests()[0].Header("range"), "bytes=123456-");
}

TEST_F(DownloadTest, ACompletePartNeedsNoConnection) {
  TestServer server([&](const auto&) { return RawAnswer(500, ""); });
  LeavePart(server, content_.size(), "\"v1\"");
  ASSERT_TRUE(Download(Request(server), {}).ok());
  ExpectWhole();
  EXPECT_TRUE(server.requests().empty());
}

TEST_F(DownloadTest, AChangedFileStartsAnew) {
  TestServer server([&](const auto& request) { return ServeFile(request, content_, "\"v2\""); });
  LeavePart(server, 1000, "\"v1\"");
  std::ofstream(Part(), std::ios::binary) << std::string(1000, 'o');  // the old version's bytes
  ASSERT_TRUE(Download(Request(server), {}).ok());
  ExpectWhole();
}

TEST_F(DownloadTest, AServerThatIgnoresRangeStartsAnew) {
  TestServer server(
      [&](const auto&) { return RawAnswer(200, "ETag: \"v1\"\r\n" + LengthLine(content_.size()), content_); });
  LeavePart(server, 1000, "\"v1\"");
  ASSERT_TRUE(Download(Request(server), {}).ok());
  ExpectWhole();
}

TEST_F(DownloadTest, WrongRangesAreNotTrusted) {
  const std::string wrong_headers[] = {
      "Content-Range: bytes 0-299999/300000\r\n",     // another start
      "Content-Range: bytes 1000-299999/300001\r\n",  // another file
      "Content-Range: bytes 1000-299999/300000\r\nETag: \"v9\"\r\n",
      "Content-Range: nonsense\r\n",
      "",
  };
  for (const std::string& headers : wrong_headers) {
    TestServer server([&](const auto& request) {
      if (request.Header("range").empty()) return ServeFile(request, content_, "\"v1\"");
      return RawAnswer(206, headers + LengthLine(299000), std::string(299000, 'w'));
    });
    LeavePart(server, 1000, "\"v1\"");
    const Status status = Download(Request(server), {});
    ASSERT_TRUE(status.ok()) << headers << status.message();
    ExpectWhole();
    EXPECT_EQ(server.requests().size(), 2u);
  }
}

TEST_F(DownloadTest, LeftOversThatDoNotFitAreIgnored) {
  TestServer server([&](const auto& request) { return ServeFile(request, content_, "\"v1\""); });
  const std::string metas[] = {"", "garbage",
                               "loopserve-part 1\nurl http://elsewhere/\nvalidator \"v1\"\ntotal 300000\n",
                               "loopserve-part 1\nurl " + server.Url("/m.gguf") + "\nvalidator \"v1\"\ntotal 10\n",
                               "loopserve-part 1\nurl " + server.Url("/m.gguf") + "\nvalidator \ntotal 300000\n"};
  for (const std::string& meta : metas) {
    LeavePart(server, 1000, "\"v1\"");
    std::ofstream(Part().string() + ".meta") << meta;
    ASSERT_TRUE(Download(Request(server), {}).ok());
    ExpectWhole();
    EXPECT_EQ(server.requests().back().Header("range"), "") << meta;
  }
}

TEST_F(DownloadTest, AWrongChecksumDeletesWhatCame) {
  TestServer server([&](const auto& request) { return ServeFile(request, content_ + "!", "\"v1\""); });
  const Status status = Download(Request(server), {});
  EXPECT_EQ(status.code(), StatusCode::kCorruptData);
  EXPECT_THAT(status.message(), HasSubstr(Sha256Hex(content_)));
  EXPECT_THAT(status.message(), HasSubstr("deleted"));
  EXPECT_TRUE(fs::is_empty(Target().parent_path()));
}

TEST_F(DownloadTest, TheHubsOwnChecksumIsUsedButNotThatOfWhereItRedirects) {
  const std::string right = Sha256Hex(content_);
  const std::string wrong = Sha256Hex("else");
  for (const bool good : {true, false}) {
    TestServer server([&](const auto& request) { return ServeFile(request, content_, "\"" + wrong + "\""); });
    TestServer hub([&](const auto&) {
      return RawAnswer(302, "X-Linked-Etag: \"" + (good ? right : wrong) + "\"\r\nLocation: " + server.Url("/data") +
                                "\r\nContent-Length: 0\r\n");
    });
    DownloadRequest request = Request(hub);
    request.sha256.clear();
    request.trust_origin_sha256 = true;
    const Status status = Download(request, {});
    EXPECT_EQ(status.code(), good ? StatusCode::kOk : StatusCode::kCorruptData) << status.message();
  }
}

TEST_F(DownloadTest, ATokenIsSentToItsOriginOnly) {
  TestServer elsewhere([&](const auto& request) { return ServeFile(request, content_, "\"v1\""); });
  TestServer hub([&](const auto& request) {
    const std::string next = request.target == "/m.gguf" ? "/second" : elsewhere.Url("/data?signed=a%2Bb");
    return RawAnswer(307, "Location: " + next + "\r\nContent-Length: 0\r\n");
  });
  DownloadRequest request = Request(hub);
  request.bearer_token = "secret";
  const Status status = Download(request, {});
  ASSERT_TRUE(status.ok()) << status.message();
  ASSERT_EQ(hub.requests().size(), 2u);
  for (const auto& seen : hub.requests()) EXPECT_EQ(seen.Header("authorization"), "Bearer secret");
  ASSERT_EQ(elsewhere.requests().size(), 1u);
  EXPECT_EQ(elsewhere.requests()[0].Header("authorization"), "");
  EXPECT_EQ(elsewhere.requests()[0].target, "/data?signed=a%2Bb");
}

TEST_F(DownloadTest, RedirectLoopsAndBadRedirectsEnd) {
  const std::string locations[] = {"/m.gguf", "ftp://h/x", "http://user:pw@h/"};
  for (const std::string& location : locations) {
    TestServer server(
        [&](const auto&) { return RawAnswer(301, "Location: " + location + "\r\nContent-Length: 0\r\n"); });
    const Status status = Download(Request(server), {});
    EXPECT_EQ(status.code(), StatusCode::kIoError) << status.message();
    EXPECT_THAT(status.message(), HasSubstr("redirects"));
    EXPECT_LE(server.requests().size(), 9u);
  }
}

TEST_F(DownloadTest, StatusesBecomeErrorsAndOnlySomeAreTriedAgain) {
  const struct {
    int status;
    StatusCode code;
    size_t requests;
    const char* text;
  } cases[] = {
      {404, StatusCode::kNotFound, 1, "404"}, {401, StatusCode::kIoError, 1, "HF_TOKEN"},
      {500, StatusCode::kIoError, 4, "500"},  {503, StatusCode::kIoError, 4, "503"},
      {418, StatusCode::kIoError, 1, "418"},  {302, StatusCode::kIoError, 1, "302"},
  };
  for (const auto& c : cases) {
    TestServer server([&](const auto&) { return RawAnswer(c.status, LengthLine(4), "nope"); });
    const Status status = Download(Request(server), {});
    EXPECT_EQ(status.code(), c.code) << c.status << status.message();
    EXPECT_THAT(status.message(), HasSubstr(c.text));
    EXPECT_EQ(server.requests().size(), c.requests) << c.status;
  }
}

TEST_F(DownloadTest, AnOverloadedServerIsTriedAgain) {
  std::atomic<int> count{0};
  TestServer server([&](const auto& request) {
    return ++count < 3 ? RawAnswer(503, LengthLine(0)) : ServeFile(request, content_, "\"v1\"");
  });
  std::vector<std::string> notes;
  ASSERT_TRUE(Download(Request(server), [&](const PullProgress& p) {
                if (p.stage == PullStage::kRetrying) notes.push_back(p.note);
              }).ok());
  EXPECT_EQ(notes.size(), 2u);
  ExpectWhole();
}

TEST_F(DownloadTest, ABodyThatIsAlwaysShortEndsInAnErrorAndKeepsThePart) {
  TestServer server([&](const auto&) {
    return RawAnswer(200, "ETag: \"v1\"\r\n" + LengthLine(content_.size()), content_.substr(0, 5000));
  });
  const Status status = Download(Request(server), {});
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_THAT(status.message(), HasSubstr("pull again to resume"));
  EXPECT_EQ(server.requests().size(), 4u);
  EXPECT_GT(fs::file_size(Part()), 0u);
  EXPECT_FALSE(fs::exists(Target()));
}

TEST_F(DownloadTest, ABodyWithoutALengthIsTakenToItsEndAndChecked) {
  TestServer server([&](const auto&) { return RawAnswer(200, "", content_); });
  ASSERT_TRUE(Download(Request(server), {}).ok());
  ExpectWhole();
  TestServer cut([&](const auto&) { return RawAnswer(200, "", content_.substr(0, 100)); });
  EXPECT_EQ(Download(Request(cut), {}).code(), StatusCode::kCorruptData);
}

TEST_F(DownloadTest, BytesBeyondTheLengthAreNotTaken) {
  TestServer server([&](const auto&) {
    return RawAnswer(200, "ETag: \"v1\"\r\n" + LengthLine(content_.size()), content_ + "excess");
  });
  ASSERT_TRUE(Download(Request(server), {}).ok());
  ExpectWhole();
}

TEST_F(DownloadTest, APageThatIsNoModelIsRefusedAtOnce) {
  TestServer server([&](const auto&) {
    const std::string page = "<html>please log in</html>" + std::string(2000000, ' ');
    return RawAnswer(200, LengthLine(page.size()), page);
  });
  DownloadRequest request = Request(server);
  request.sha256.clear();
  const Status status = Download(request, {});
  EXPECT_EQ(status.code(), StatusCode::kCorruptData);
  EXPECT_THAT(status.message(), HasSubstr("not a GGUF file"));
  EXPECT_TRUE(fs::is_empty(Target().parent_path()));
}

// The file size limit stands for a full disk: the system refuses the write in the same place.
TEST_F(DownloadTest, AFullDiskKeepsThePartAndTheNextPullGoesOn) {
  TestServer server([&](const auto& request) { return ServeFile(request, content_, "\"v1\""); });
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto old_handler = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{100000, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Status status = Download(Request(server), {});
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, old_handler);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.message();
  EXPECT_THAT(status.message(), HasSubstr("not enough space"));
  EXPECT_EQ(fs::file_size(Part()), 100000u);
  ASSERT_TRUE(Download(Request(server), {}).ok());
  EXPECT_EQ(server.requests().back().Header("range"), "bytes=100000-");
  ExpectWhole();
}

TEST_F(DownloadTest, AFileLargerThanTheDiskIsRefusedBeforeItsBody) {
  TestServer server([&](const auto&) { return RawAnswer(200, LengthLine(size_t{1} << 60), "GGUF"); });
  const Status status = Download(Request(server), {});
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.message();
  EXPECT_THAT(status.message(), HasSubstr("1.00 EiB"));
}

TEST_F(DownloadTest, AnUnwritableFolderIsNamed) {
  TestServer server([&](const auto& request) { return ServeFile(request, content_, ""); });
  std::ofstream(dir_.path() / "plain") << "x";
  DownloadRequest request = Request(server);
  for (const fs::path& folder : {dir_.path() / "plain" / "sub", fs::path("/proc/self/none")}) {
    request.target = folder / "m.gguf";
    const Status status = Download(request, {});
    EXPECT_EQ(status.code(), StatusCode::kIoError) << status.message();
    EXPECT_THAT(status.message(), HasSubstr(folder.string()));
  }
  EXPECT_TRUE(server.requests().empty());
}

TEST_F(DownloadTest, ACancelStopsWithinASilentBodyAndKeepsThePart) {
  std::atomic<bool> cancel{false};
  TestServer* self = nullptr;
  TestServer server([&](const auto&) {
    // The client sees the first half at once and the rest never: the connection stays open until the cancel.
    while (!cancel && !self->stopping()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return std::string();
  });
  self = &server;
  DownloadRequest request = Request(server);
  request.limits.timeouts.read_ms = 20000;
  request.cancel = &cancel;
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    cancel = true;
  });
  const auto begin = std::chrono::steady_clock::now();
  const Status status = Download(request, {});
  canceller.join();
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST_F(DownloadTest, ACancelBetweenBytesKeepsThePart) {
  std::atomic<bool> cancel{false};
  TestServer server([&](const auto& request) { return ServeFile(request, content_, "\"v1\""); });
  DownloadRequest request = Request(server);
  request.cancel = &cancel;
  const Status status = Download(request, [&](const PullProgress& p) { cancel = p.received_bytes > 0; });
  EXPECT_EQ(status.code(), StatusCode::kCancelled);
  EXPECT_GT(fs::file_size(Part()), 0u);
  cancel = false;
  ASSERT_TRUE(Download(request, {}).ok());
  ExpectWhole();
}

TEST_F(DownloadTest, ASilentServerTimesOut) {
  TestServer* self = nullptr;
  std::atomic<bool> release{false};
  TestServer server([&](const auto&) {
    while (!release && !self->stopping()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return std::string();
  });
  self = &server;
  DownloadRequest request = Request(server);
  request.limits.timeouts.read_ms = 100;
  request.limits.max_attempts = 1;
  const Status status = Download(request, {});
  release = true;
  EXPECT_EQ(status.code(), StatusCode::kIoError) << status.message();
}

TEST_F(DownloadTest, NobodyListeningIsAnErrorNamingTheAddress) {
  int port = 0;
  {
    port = TestServer([](const auto&) { return std::string(); }).port();
  }
  DownloadRequest request;
  request.url = *ParseUrl("http://127.0.0.1:" + std::to_string(port) + "/m.gguf");
  request.target = Target();
  request.limits.max_attempts = 2;
  request.limits.first_backoff_ms = 1;
  const Status status = Download(request, {});
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_THAT(status.message(), HasSubstr("127.0.0.1:" + std::to_string(port)));
}

}  // namespace
}  // namespace loopserve
