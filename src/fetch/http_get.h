// One HTTP GET with redirects, streamed: the transport of a download, which knows nothing of files or resuming.
// Thread rule: free function; the callbacks run on the calling thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "loopserve/status.h"
#include "src/fetch/url.h"

namespace loopserve {

struct HttpTimeouts {
  int connect_ms = 15000;
  int read_ms = 30000;  ///< longest silence within a body
};

struct HttpGetRequest {
  Url url;
  std::map<std::string, std::string> headers;
  std::string bearer_token;  ///< sent to the origin of `url` only, never to where it redirects
  HttpTimeouts timeouts;
  int max_redirects = 8;
  const std::atomic<bool>* cancel = nullptr;
};

/// The head of a final answer (no redirect). Header values as sent; empty where missing.
struct HttpHead {
  int status = 0;
  std::string etag;
  std::string last_modified;
  std::string content_range;
  std::string content_type;
  std::string retry_after;
  std::optional<int64_t> content_length_bytes;
  /// What the first origin says the file's SHA-256 is (its X-Linked-Etag, or its ETag where that is 64 hex digits), in
  /// lower case; later hops are not asked. Empty if it says nothing, and always in on_head.
  std::string origin_sha256;
};

struct HttpOutcome {
  Status status;           ///< ok: the body was delivered whole, as far as the transport can know
  bool transient = false;  ///< worth trying again
  HttpHead head;           ///< status 0: no answer came
};

/// on_head: sees a 200 or 206 answer before its body; return false to stop. on_body: gets its bytes; the same.
/// Any other answer is an error outcome with `head` filled in. A stop by a callback gives kCancelled; the caller knows
/// why it stopped.
HttpOutcome HttpGet(const HttpGetRequest& request, const std::function<bool(const HttpHead&)>& on_head,
                    const std::function<bool(std::string_view)>& on_body);

}  // namespace loopserve
