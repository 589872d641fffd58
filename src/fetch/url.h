// The few things about http(s) URLs that a downloader needs. Thread rule: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "loopserve/status.h"

namespace loopserve {

struct Url {
  std::string scheme;  ///< "http" or "https"
  std::string host;    ///< lower case; IPv6 addresses in brackets
  int port = 0;
  std::string target;  ///< path and query, percent-encoded, begins with '/'

  std::string Origin() const;  ///< scheme://host:port
  std::string ToString() const { return Origin() + target; }
};

/// kInvalidArgument: another scheme, no host, a bad port, control characters, or user:password@ (which would end up in
/// logs and in the resume file).
Result<Url> ParseUrl(std::string_view text);

/// The URL that a Location header means when it answers a request for `base`.
Result<Url> ResolveLocation(const Url& base, std::string_view location);

/// The last path segment, percent-decoded; may be empty or hostile.
std::string LastPathSegment(const Url& url);

/// Percent-encodes everything but unreserved characters and '/'.
std::string EncodePath(std::string_view path);

}  // namespace loopserve
