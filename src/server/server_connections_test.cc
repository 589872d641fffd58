// Clients that go away, that are silent, and a server that ends.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "src/server/test_server.h"

namespace loopserve::server {
namespace {

using testing::HasSubstr;

TEST_F(ServerTest, AClientThatGoesAwayFreesItsWork) {
  Serve();
  JsonIn body = ChatBody({{"user", TestWords(20, 1)}});
  body["n"] = 8;
  body["max_tokens"] = 3900;
  for (const bool stream : {true, false}) {
    SCOPED_TRACE(stream);
    body["stream"] = stream;
    if (stream) {
      ReadUntil(body, [](const std::string& all) { return all.find("data: ") != std::string::npos; });
    } else {
      auto client = Client();
      client.set_read_timeout(0, 100'000);
      EXPECT_FALSE(client.Post("/v1/chat/completions", body.dump(), "application/json"));
    }
    for (int i = 0; i < 3000 && server_->context().scheduler->n_running() > 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_EQ(server_->context().scheduler->n_running(), 0u);
    // Tokens of answers that came to their end: none was written for nobody.
    EXPECT_THAT(Client().Get("/metrics")->body, HasSubstr("vllm:generation_tokens_total{model_name=\"tiny\"} 0\n"));
  }
}

TEST_F(ServerTest, EndingLetsAStreamEnd) {
  Serve();
  JsonIn body = ChatBody({{"user", TestWords(20, 1)}});
  body["max_tokens"] = 300;
  body["stream"] = true;
  std::atomic<bool> began{false};
  std::string received;
  std::thread reader([&] {
    received = ReadUntil(body, [&](const std::string& all) {
      // Headers and a comment leave before the request has left the queue.
      began = began || all.find("data: ") != std::string::npos;
      return false;
    });
  });
  while (!began) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  server_->Stop(std::chrono::seconds(60));
  reader.join();
  EXPECT_THAT(received, HasSubstr("data: [DONE]"));
}

TEST_F(ServerTest, ASilentClientIsHungUpOn) {
  ServerOptions options = Options();
  options.http.read_timeout_s = 1;
  Serve(options);
  httplib::Client other = Client();
  // Headers promise a body that never comes.
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(server_->port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  const std::string head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
  ASSERT_EQ(send(fd, head.data(), head.size(), MSG_NOSIGNAL), static_cast<ssize_t>(head.size()));
  EXPECT_EQ(other.Get("/health")->status, 200);
  char buffer[4096];
  while (recv(fd, buffer, sizeof(buffer), 0) > 0) {
  }
  close(fd);
  EXPECT_EQ(other.Get("/health")->status, 200);
}

}  // namespace
}  // namespace loopserve::server
