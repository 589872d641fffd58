// What no good client sends, byte by byte: each gets an error or is hung up on, and others are served as if nothing had
// happened.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <thread>

#include "src/base/unique_fd.h"
#include "src/server/test_server.h"

namespace loopserve::server {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using testing::StartsWith;

class ServerHostileTest : public ServerTest {
 protected:
  UniqueFd Connect(int receive_buffer_bytes = 0) const {
    UniqueFd fd(socket(AF_INET, SOCK_STREAM, 0));
    if (receive_buffer_bytes > 0) {
      setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
    }
    timeval timeout{20, 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(server_->port()));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    return fd;
  }
  static void Send(const UniqueFd& fd, const std::string& bytes) {
    send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  }
  static std::string ReadAll(const UniqueFd& fd) {
    std::string all;
    char buffer[4096];
    for (ssize_t n = 0; (n = recv(fd.get(), buffer, sizeof(buffer), 0)) > 0;)
      all.append(buffer, static_cast<size_t>(n));
    return all;
  }
  /// Sends bytes, says that no more come, and gives all of the reply.
  std::string Exchange(const std::string& bytes) const {
    const UniqueFd fd = Connect();
    Send(fd, bytes);
    shutdown(fd.get(), SHUT_WR);
    return ReadAll(fd);
  }
  static std::string Posted(const std::string& body, const std::string& headers) {
    return "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + "\r\n" + body;
  }
  void ExpectServes() const { EXPECT_EQ(Get("/health").first, 200); }
  void ExpectIdleSoon() const {
    for (int i = 0; i < 500 && server_->context().scheduler->n_running() > 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_EQ(server_->context().scheduler->n_running(), 0u);
  }
};

TEST_F(ServerHostileTest, LengthsThatConflictOrLie) {
  Serve();
  const std::string body = ChatBody({{"user", "x"}}).dump();
  const std::string length = "Content-Length: " + std::to_string(body.size()) + "\r\n";
  const struct {
    const char* name;
    std::string headers;
  } kCases[] = {{"two lengths", "Content-Length: 3\r\n" + length},
                {"a length and chunks", length + "Transfer-Encoding: chunked\r\n"},
                {"a negative one", "Content-Length: -5\r\n"},
                {"a huge one", "Content-Length: 99999999999999999999999\r\n"},
                {"one with letters", "Content-Length: 5x\r\n"},
                {"more than there is", "Content-Length: 100000\r\n"},
                {"an unknown encoding", "Transfer-Encoding: pigeons\r\n"},
                {"a bad chunk", "Transfer-Encoding: chunked\r\n"}};
  for (const auto& c : kCases) {
    EXPECT_THAT(Exchange(Posted(body, c.headers)), AnyOf("", StartsWith("HTTP/1.1 4"))) << c.name;
  }
  EXPECT_THAT(Exchange(Posted(body, length)), StartsWith("HTTP/1.1 200"));
  ExpectServes();
}

TEST_F(ServerHostileTest, CompressedBodiesAreRefusedUnread) {
  Serve();
  // The head of a gzip bomb; what it would become is never computed.
  const std::string gzip("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xed\xc1\x01\x0d", 14);
  for (const char* encoding : {"gzip", "deflate", "br", "gzip, gzip", "identity, gzip"}) {
    const std::string headers =
        std::string("Content-Encoding: ") + encoding + "\r\nContent-Length: " + std::to_string(gzip.size()) + "\r\n";
    EXPECT_THAT(Exchange(Posted(gzip, headers)), StartsWith("HTTP/1.1 4")) << encoding;
  }
  ExpectServes();
}

TEST_F(ServerHostileTest, BytesThatAreNoHttp) {
  Serve();
  for (const std::string& bytes :
       {std::string("\0\0\0\0\r\n\r\n", 8), std::string("\x16\x03\x01\x02\x00\x01\x00", 7), std::string("GET\r\n\r\n"),
        std::string("GET / HTTP/9.9\r\n\r\n"), std::string("GET /health HTTP/1.1\r\nNo colon\r\n\r\n"),
        std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "GET /" + std::string(100'000, 'a') + " HTTP/1.1\r\n\r\n",
        "GET /health HTTP/1.1\r\nX: " + std::string(100'000, 'a') + "\r\n\r\n"}) {
    EXPECT_THAT(Exchange(bytes), AnyOf("", StartsWith("HTTP/1.1 4"), StartsWith("HTTP/1.1 5"))) << bytes.substr(0, 40);
  }
  ExpectServes();
}

TEST_F(ServerHostileTest, NumbersThatAreNone) {
  Serve();
  for (const char* number : {"NaN", "Infinity", "-Infinity", "1e999", "0x10", "1.", "+1", "\"1\"", "[1]"}) {
    const std::string body =
        R"({"messages": [{"role": "user", "content": "x"}], "temperature": )" + std::string(number) + "}";
    EXPECT_EQ(Post("/v1/chat/completions", body).first, 400) << number;
  }
  for (const char* path : {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize",
                           "/detokenize", "/apply-template"}) {
    EXPECT_EQ(Post(path, "{\"messages\": " + std::string(60'000, '[')).first, 400) << path;
    EXPECT_EQ(Post(path, std::string("{\"prompt\": \"\xc3\x28\"}")).first, 400) << path;
    EXPECT_EQ(Post(path, std::string("[]")).first, 400) << path;
  }
  std::string many = "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]";
  for (int i = 0; i < 20'000; ++i) many += ", \"k" + std::to_string(i) + "\": 0";
  EXPECT_EQ(Post("/v1/chat/completions", many + "}").first, 400) << "an object of too many members";
}

TEST_F(ServerHostileTest, LongIdsEmptyMessagesAndRolesOutOfOrder) {
  Serve();
  JsonIn body = ChatBody({{"user", "x"}});
  body["max_tokens"] = 2;
  for (const char* field : {"session_id", "prompt_cache_key", "cache_salt", "user"}) {
    JsonIn named = body;
    named[field] = std::string(10'240, 'i');
    EXPECT_EQ(Post("/v1/chat/completions", named).first, 200) << field;
    EXPECT_EQ(Post("/v1/chat/completions", named).first, 200) << field;
  }
  JsonIn model = body;
  model["model"] = std::string(10'240, 'm');
  EXPECT_EQ(Post("/v1/chat/completions", model).second["error"]["param"], "model");
  JsonIn calls = body;
  calls["messages"].push_back({{"role", "tool"}, {"tool_call_id", std::string(10'240, 'c')}, {"content", "x"}});
  EXPECT_EQ(Post("/v1/chat/completions", calls).second["error"]["param"], "messages[1].tool_call_id");
  EXPECT_EQ(Get("/v1/sessions/" + std::string(7000, 's')).first / 100, 4);
  const std::vector<std::vector<Message>> dialogues = {
      {{"user", ""}},
      {{"system", ""}, {"user", ""}},
      {{"assistant", "x"}},
      {{"tool", "x"}, {"user", "y"}},
      {{"user", "a"}, {"user", "b"}, {"system", "c"}, {"assistant", "d"}},
      {{"nobody knows this role", "x"}}};
  for (const auto& messages : dialogues) {
    JsonIn odd = ChatBody(messages);
    odd["max_tokens"] = 2;
    EXPECT_EQ(Post("/v1/chat/completions", odd).first, 200) << odd;
  }
}

TEST_F(ServerHostileTest, ASlowSenderHoldsUpNobody) {
  ServerOptions options = Options();
  options.http.read_timeout_s = 1;
  Serve(options);
  const UniqueFd slow = Connect();
  const std::string request = Posted("{", "Content-Length: 1000\r\n");
  for (const char c : request.substr(0, 60)) {
    Send(slow, std::string(1, c));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(Post("/v1/chat/completions", ChatBody({{"user", "x"}})).first, 200);
  EXPECT_THAT(ReadAll(slow), AnyOf("", StartsWith("HTTP/1.1 4"))) << "hung up on";
  ExpectServes();
}

TEST_F(ServerHostileTest, ASlowReaderHoldsUpNobodyAndIsHungUpOn) {
  ServerOptions options = Options();
  options.http.write_timeout_s = 1;
  options.defaults.sampling.max_tokens = 3000;
  Serve(options);
  JsonIn body = ChatBody({{"user", "x"}});
  body["stream"] = true;
  body["logprobs"] = true;
  body["top_logprobs"] = 20;
  const std::string text = body.dump();
  const UniqueFd slow = Connect(2048);
  Send(slow, Posted(text, "Content-Length: " + std::to_string(text.size()) + "\r\n"));
  JsonIn other = ChatBody({{"user", "y"}});
  other["max_tokens"] = 4;
  EXPECT_EQ(Post("/v1/chat/completions", other).first, 200);
  ExpectIdleSoon();
  // Nothing is read: the stream's five megabytes fit nowhere, and the connection ends a second later.
  std::this_thread::sleep_for(std::chrono::milliseconds(2500));
  EXPECT_EQ(ReadAll(slow).find("[DONE]"), std::string::npos);
}

TEST_F(ServerHostileTest, GoingAwayWhileThePromptIsRead) {
  Serve();
  JsonIn body = ChatBody({{"user", TestWords(1800, 1)}});
  for (const bool stream : {true, false}) {
    body["stream"] = stream;
    body["cache_salt"] = stream ? "a" : "b";
    const std::string text = body.dump();
    {
      const UniqueFd fd = Connect();
      Send(fd, Posted(text, "Content-Length: " + std::to_string(text.size()) + "\r\n"));
      for (int i = 0; i < 500 && server_->context().scheduler->n_running() == 0; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
    ExpectIdleSoon();
  }
  ExpectServes();
}

TEST_F(ServerHostileTest, EndingCutsStreamsAfterTheGrace) {
  Serve();
  JsonIn body = ChatBody({{"user", "x"}});
  body["max_tokens"] = 3900;
  body["stream"] = true;
  const std::string text = body.dump();
  const UniqueFd fd = Connect();
  Send(fd, Posted(text, "Content-Length: " + std::to_string(text.size()) + "\r\n"));
  while (server_->context().scheduler->n_running() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  server_->Stop(std::chrono::milliseconds(0));
  const std::string received = ReadAll(fd);
  EXPECT_THAT(received, HasSubstr("the server is going down"));
  EXPECT_THAT(received, testing::Not(HasSubstr("[DONE]")));
}

}  // namespace
}  // namespace loopserve::server
