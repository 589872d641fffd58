#include "src/fetch/http_get.h"

#include <httplib.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "src/base/sha256.h"

namespace loopserve {
namespace {

bool IsRedirect(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

bool IsTransientStatus(int status) {
  return status == 408 || status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

bool IsCancelled(const std::atomic<bool>* cancel) {
  return cancel != nullptr && cancel->load(std::memory_order_relaxed);
}

// Breaks a client's connection when the cancel flag is set, so that a silent server cannot hold up a cancel.
class CancelWatcher {
 public:
  CancelWatcher(httplib::Client& client, const std::atomic<bool>* cancel) {
    if (cancel == nullptr) return;
    thread_ = std::thread([this, &client, cancel] {
      std::unique_lock lock(mutex_);
      while (!done_) {
        // Repeated: a stop that comes before the connection exists has no effect.
        if (IsCancelled(cancel)) client.stop();
        wake_.wait_for(lock, std::chrono::milliseconds(50));
      }
    });
  }
  ~CancelWatcher() {
    if (!thread_.joinable()) return;
    {
      std::lock_guard lock(mutex_);
      done_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
  bool done_ = false;  // guarded by mutex_
  std::thread thread_;
};

std::string Sha256FromTag(std::string tag) {
  if (tag.starts_with("W/")) tag.erase(0, 2);
  if (tag.size() >= 2 && tag.front() == '"' && tag.back() == '"') tag = tag.substr(1, tag.size() - 2);
  if (!IsSha256Hex(tag)) return "";
  std::transform(tag.begin(), tag.end(), tag.begin(),
                 [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
  return tag;
}

HttpHead ReadHead(const httplib::Response& response) {
  HttpHead head;
  head.status = response.status;
  head.etag = response.get_header_value("ETag");
  head.last_modified = response.get_header_value("Last-Modified");
  head.content_range = response.get_header_value("Content-Range");
  head.content_type = response.get_header_value("Content-Type");
  head.retry_after = response.get_header_value("Retry-After");
  const std::string length = response.get_header_value("Content-Length");
  int64_t value = 0;
  const auto [end, error] = std::from_chars(length.data(), length.data() + length.size(), value);
  if (!length.empty() && error == std::errc() && end == length.data() + length.size() && value >= 0) {
    head.content_length_bytes = value;
  }
  return head;
}

Status StatusOfAnswer(const HttpHead& head, const Url& url) {
  const std::string where = url.ToString().substr(0, 300);
  const std::string code = "HTTP status " + std::to_string(head.status);
  if (head.status == 404 || head.status == 410) {
    return Status(StatusCode::kNotFound, "nothing is found at " + where + " (" + code + ")");
  }
  if (head.status == 401 || head.status == 403) {
    return Status(StatusCode::kIoError,
                  "access to " + where + " was refused (" + code +
                      "); a model hub may want an access token in HF_TOKEN and its terms accepted");
  }
  return Status(StatusCode::kIoError, where + " answered with " + code);
}

struct Hop {
  HttpOutcome outcome;
  std::string location;
  std::string linked_sha256;
  std::string tag_sha256;
};

Status TransportError(httplib::Error error, const Url& url) {
  std::string message =
      "connection to " + url.host + ":" + std::to_string(url.port) + " failed: " + httplib::to_string(error);
  if (error == httplib::Error::SSLServerVerification || error == httplib::Error::SSLServerHostnameVerification) {
    message += " (its certificate cannot be trusted; is the package ca-certificates installed and the clock right?)";
  }
  return Status(StatusCode::kIoError, message);
}

// The answer to one request, redirects not followed.
Hop GetOnce(const HttpGetRequest& request, const Url& url, bool send_token,
            const std::function<bool(const HttpHead&)>& on_head, const std::function<bool(std::string_view)>& on_body) {
  httplib::Client client(url.Origin());
  client.set_follow_location(false);
  client.set_path_encode(false);  // the target is encoded already; doing it twice would break signed URLs
  client.set_decompress(false);
  client.set_keep_alive(false);
  client.set_connection_timeout(std::chrono::milliseconds(request.timeouts.connect_ms));
  client.set_read_timeout(std::chrono::milliseconds(request.timeouts.read_ms));
  httplib::Headers headers{{"User-Agent", "loopserve"}, {"Accept-Encoding", "identity"}, {"Accept", "*/*"}};
  for (const auto& [name, value] : request.headers) headers.emplace(name, value);
  if (send_token) headers.emplace("Authorization", "Bearer " + request.bearer_token);

  Hop hop;
  bool stopped = false;
  const auto handle_head = [&](const httplib::Response& response) {
    hop.outcome.head = ReadHead(response);
    hop.location = response.get_header_value("Location");
    hop.linked_sha256 = Sha256FromTag(response.get_header_value("X-Linked-Etag"));
    hop.tag_sha256 = Sha256FromTag(hop.outcome.head.etag);
    if (response.status != 200 && response.status != 206) return false;
    stopped = !on_head(hop.outcome.head);
    return !stopped;
  };
  const auto handle_body = [&](const char* data, size_t size) {
    stopped = IsCancelled(request.cancel) || !on_body(std::string_view(data, size));
    return !stopped;
  };
  httplib::Error error = httplib::Error::Success;
  {
    const CancelWatcher watcher(client, request.cancel);
    error = client.Get(url.target, headers, handle_head, handle_body).error();
  }
  const int status = hop.outcome.head.status;
  if (stopped || IsCancelled(request.cancel)) {
    hop.outcome.status = Status(StatusCode::kCancelled, "cancelled");
  } else if (status != 0 && status != 200 && status != 206) {
    hop.outcome.status = StatusOfAnswer(hop.outcome.head, url);
    hop.outcome.transient = IsTransientStatus(status);
  } else if (error != httplib::Error::Success) {
    hop.outcome.status = TransportError(error, url);
    hop.outcome.transient = error != httplib::Error::SSLServerVerification &&
                            error != httplib::Error::SSLServerHostnameVerification &&
                            error != httplib::Error::SSLLoadingCerts;
  }
  return hop;
}

HttpOutcome Fail(StatusCode code, const std::string& message) { return {Status(code, message), false, {}}; }

}  // namespace

HttpOutcome HttpGet(const HttpGetRequest& request, const std::function<bool(const HttpHead&)>& on_head,
                    const std::function<bool(std::string_view)>& on_body) {
  try {
    Url url = request.url;
    std::string sha256;
    for (int redirects = 0; redirects <= request.max_redirects; ++redirects) {
      const bool same_origin = url.Origin() == request.url.Origin();
      const bool send_token = same_origin && !request.bearer_token.empty();
      Hop hop = GetOnce(request, url, send_token, on_head, on_body);
      if (same_origin && sha256.empty()) sha256 = hop.linked_sha256.empty() ? hop.tag_sha256 : hop.linked_sha256;
      hop.outcome.head.origin_sha256 = sha256;
      const bool redirected = IsRedirect(hop.outcome.head.status) && !hop.location.empty() &&
                              hop.outcome.status.code() != StatusCode::kCancelled;
      if (!redirected) return hop.outcome;
      Result<Url> next = ResolveLocation(url, hop.location);
      if (!next.ok()) return Fail(StatusCode::kIoError, url.host + " redirects to a " + next.status().message());
      if (url.scheme == "https" && next->scheme != "https") {
        return Fail(StatusCode::kIoError, url.host + " redirects from https to http; refused");
      }
      url = std::move(*next);
    }
    return Fail(StatusCode::kIoError, request.url.host + " redirects more than " +
                                          std::to_string(request.max_redirects) + " times; giving up");
  } catch (const std::exception& error) {
    return Fail(StatusCode::kIoError, "connection to " + request.url.host + " failed: " + error.what());
  }
}

}  // namespace loopserve
