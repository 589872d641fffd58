// Fuzz target for the server's HTTP: bytes are sent to it over loopback as they are, in one piece or in several, and
// the connection is closed; one in 64 inputs is followed by a look at whether it still serves. To be run under the
// thread sanitizer too. As server_fuzz.cc says, with http_fuzz in place of server_fuzz.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>

#include "fuzz/server_fuzz.h"
#include "src/base/unique_fd.h"
#include "src/server/server.h"

namespace loopserve::server {
namespace {

struct Served {
  Served() : server(Options()) {
    LS_CHECK(server.Start().ok());
    server.Serve(TinyEngine());
  }
  static ServerOptions Options() {
    ServerOptions options;
    options.model_id = "tiny";
    options.http.port = 0;
    options.http.threads = 8;
    options.http.max_body_bytes = 1 << 16;
    options.http.read_timeout_s = options.http.write_timeout_s = options.http.keep_alive_s = 1;
    options.defaults.sampling.max_tokens = 3;
    return options;
  }
  Server server;
};

/// All that comes back until the other side closes, or nothing comes for two seconds.
std::string Exchange(int port, const std::string& bytes, size_t piece) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  LS_CHECK(fd >= 0);
  const UniqueFd owned(fd);
  timeval timeout{2, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  // Without it closed connections would use up the ports of a long run.
  const linger reset{1, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  LS_CHECK(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  for (size_t at = 0; at < bytes.size(); at += piece) {
    const size_t n = std::min(piece, bytes.size() - at);
    if (send(fd, bytes.data() + at, n, MSG_NOSIGNAL) != static_cast<ssize_t>(n)) break;
  }
  shutdown(fd, SHUT_WR);
  std::string reply;
  char buffer[4096];
  for (ssize_t n = 0; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) reply.append(buffer, static_cast<size_t>(n));
  return reply;
}

}  // namespace

std::vector<std::string> FuzzSeeds() {
  const std::string host = " HTTP/1.1\r\nHost: x\r\n";
  const auto post = [&](const std::string& path, const std::string& headers, const std::string& body) {
    return "POST " + path + host + headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  };
  const std::string chat = R"({"messages": [{"role": "user", "content": "x"}], "stream": true})";
  return {"GET /health" + host + "\r\n",
          "GET /v1/models/tiny" + host + "Connection: close\r\n\r\nGET /metrics" + host + "\r\n",
          "GET /health" + host + "\r\nDELETE /v1/sessions/a%2F..%00" + host + "\r\n",
          post("/v1/chat/completions", "Content-Type: application/json\r\n", chat),
          post("/v1/chat/completions", "Content-Length: 5\r\n", chat),
          post("/v1/completions", "Content-Encoding: gzip\r\n", "\x1f\x8b\x08"),
          "POST /tokenize" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"con\r\nb\r\ntent\": \"a\"}\r\n0\r\n\r\n",
          "POST /tokenize" + host + "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nffffffffffffffff\r\n",
          "POST /v1/messages" + host +
              "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9\r\n\r\n--b\r\n\r\n--b",
          "GET /v1/models" + host + "Range: bytes=0-1,5-\r\nExpect: 100-continue\r\nAuthorization: Bearer\r\n\r\n",
          "OPTIONS *" + host + "Content-Length: 99999999999999999999\r\n\r\n"};
}

}  // namespace loopserve::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace loopserve::server;
  static Served served;
  static uint64_t count = 0;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  Exchange(served.server.port(), bytes, size > 0 && data[0] % 2 == 0 ? 1 + size / 3 : size + 1);
  if (++count % 64 == 0) {
    const std::string health =
        Exchange(served.server.port(), "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 4096);
    LS_CHECK(health.find("{\"status\":\"ok\"}") != std::string::npos);
  }
  return 0;
}
