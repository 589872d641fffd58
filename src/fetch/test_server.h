// A web server for tests on a loopback port of the system's choice. What it answers is written by the test byte for
// byte, so that it can break every rule a real one keeps. One connection, one request, one answer.
// Thread rule: the handler runs on the server's thread; requests() may be called from any.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/base/check.h"

namespace loopserve {

class TestServer {
 public:
  struct Request {
    std::string target;
    std::map<std::string, std::string> headers;  // names in lower case

    std::string Header(const std::string& name) const {
      const auto found = headers.find(name);
      return found == headers.end() ? "" : found->second;
    }
  };
  using Handler = std::function<std::string(const Request&)>;

  explicit TestServer(Handler handler) : handler_(std::move(handler)), listener_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    LS_CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0 && listen(listener_, 16) == 0);
    LS_CHECK(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~TestServer() {
    stopping_ = true;
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
  }
  TestServer(const TestServer&) = delete;

  std::string Url(const std::string& target) const { return "http://127.0.0.1:" + std::to_string(port_) + target; }
  int port() const { return port_; }
  std::vector<Request> requests() const {
    std::lock_guard lock(mutex_);
    return requests_;
  }
  bool stopping() const { return stopping_; }

 private:
  void Serve() {
    while (!stopping_) {
      const int connection = accept(listener_, nullptr, nullptr);
      if (connection < 0) continue;
      std::string text;
      char buffer[4096];
      while (text.find("\r\n\r\n") == std::string::npos) {
        const ssize_t n = recv(connection, buffer, sizeof(buffer), 0);
        if (n <= 0) break;
        text.append(buffer, static_cast<size_t>(n));
      }
      const Request request = Parse(text);
      {
        std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      Send(connection, handler_(request));
      close(connection);
    }
  }

  static void Send(int connection, const std::string& answer) {
    for (size_t sent = 0; sent < answer.size();) {
      const ssize_t n = send(connection, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return;
      sent += static_cast<size_t>(n);
    }
  }

  static Request Parse(const std::string& text) {
    Request request;
    const size_t first = text.find(' ');
    request.target = text.substr(first + 1, text.find(' ', first + 1) - first - 1);
    for (size_t at = text.find("\r\n"); at != std::string::npos && at + 2 < text.size();
         at = text.find("\r\n", at + 2)) {
      const std::string line = text.substr(at + 2, text.find("\r\n", at + 2) - at - 2);
      const size_t colon = line.find(": ");
      if (colon == std::string::npos) continue;
      std::string name = line.substr(0, colon);
      std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
      request.headers[name] = line.substr(colon + 2);
    }
    return request;
  }

  Handler handler_;
  int listener_;
  int port_ = 0;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::vector<Request> requests_;  // guarded by mutex_
  std::thread thread_;
};

/// "HTTP/1.1 STATUS" with these header lines (each ended by \r\n) and body; the length line is the caller's.
inline std::string RawAnswer(int status, const std::string& headers, const std::string& body = "") {
  return "HTTP/1.1 " + std::to_string(status) + " X\r\nConnection: close\r\n" + headers + "\r\n" + body;
}

inline std::string LengthLine(size_t bytes) { return "Content-Length: " + std::to_string(bytes) + "\r\n"; }

/// What a well-behaved server answers for a file: 200, or 206 where Range and If-Range ask for it.
inline std::string ServeFile(const TestServer::Request& request, const std::string& content, const std::string& etag) {
  const std::string range = request.Header("range");
  const std::string if_range = request.Header("if-range");
  const std::string tag = etag.empty() ? "" : "ETag: " + etag + "\r\n";
  if (range.empty() || (!if_range.empty() && if_range != etag)) {
    return RawAnswer(200, tag + LengthLine(content.size()), content);
  }
  const size_t first = std::stoul(range.substr(range.find('=') + 1));
  const std::string total = std::to_string(content.size());
  if (first >= content.size()) return RawAnswer(416, "Content-Range: bytes */" + total + "\r\nContent-Length: 0\r\n");
  return RawAnswer(206,
                   tag + LengthLine(content.size() - first) + "Content-Range: bytes " + std::to_string(first) + "-" +
                       std::to_string(content.size() - 1) + "/" + total + "\r\n",
                   content.substr(first));
}

}  // namespace loopserve
