#include "src/fetch/url.h"

#include <algorithm>
#include <charconv>
#include <cstdint>

namespace loopserve {
namespace {

bool IsUnreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

void AppendEncoded(std::string& out, char c) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  const auto byte = static_cast<uint8_t>(c);
  out += '%';
  out += kDigits[byte >> 4];
  out += kDigits[byte & 15];
}

std::string ToLower(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return lower;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Path and query of a URL: no fragment, begins with '/', nothing that could break the request line.
std::string CleanTarget(std::string_view rest) {
  rest = rest.substr(0, rest.find('#'));
  std::string target = rest.empty() || rest[0] != '/' ? "/" : "";
  for (char c : rest) {
    if (c <= ' ' || c >= 127 || c == '"' || c == '<' || c == '>' || c == '\\') {
      AppendEncoded(target, c);
    } else {
      target += c;
    }
  }
  return target;
}

Status Invalid(std::string_view text, const std::string& why) {
  std::string shown;
  for (char c : text.substr(0, 200)) shown += c >= ' ' && c != 127 ? c : '?';
  return Status(StatusCode::kInvalidArgument, "bad URL '" + shown + "': " + why);
}

Status ParsePort(std::string_view text, std::string_view digits, int* port) {
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), *port);
  if (error != std::errc() || end != digits.data() + digits.size() || *port < 1 || *port > 65535) {
    return Invalid(text, "the port must be a number from 1 to 65535");
  }
  return Status::Ok();
}

}  // namespace

std::string Url::Origin() const { return scheme + "://" + host + ":" + std::to_string(port); }

Result<Url> ParseUrl(std::string_view text) {
  if (std::any_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c < ' ') || c == 127; })) {
    return Invalid(text, "it contains control characters");
  }
  const size_t colon = text.find("://");
  Url url;
  url.scheme = ToLower(text.substr(0, colon == std::string_view::npos ? 0 : colon));
  if (url.scheme != "http" && url.scheme != "https") return Invalid(text, "it must begin with http:// or https://");
  const std::string_view after = text.substr(colon + 3);
  const size_t authority_end = std::min(after.find_first_of("/?#"), after.size());
  std::string_view authority = after.substr(0, authority_end);
  if (authority.find('@') != std::string_view::npos) {
    return Status(StatusCode::kInvalidArgument, "bad URL: user names and passwords in it are not supported");
  }
  const size_t bracket = authority.rfind(']');
  const size_t port_colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  url.host = ToLower(authority.substr(0, port_colon));
  if (url.host.empty()) return Invalid(text, "it has no host");
  const bool plain = std::all_of(url.host.begin(), url.host.end(),
                                 [](char c) { return IsUnreserved(c) || c == '[' || c == ']' || c == ':'; });
  if (!plain) return Invalid(text, "the host has characters that no host name has");
  url.port = url.scheme == "https" ? 443 : 80;
  if (port_colon != std::string_view::npos) {
    LS_RETURN_IF_ERROR(ParsePort(text, authority.substr(port_colon + 1), &url.port));
  }
  url.target = CleanTarget(after.substr(authority_end));
  return url;
}

Result<Url> ResolveLocation(const Url& base, std::string_view location) {
  if (location.find("://") != std::string_view::npos && location.find("://") < location.find_first_of("/?#")) {
    return ParseUrl(location);
  }
  if (location.substr(0, 2) == "//") return ParseUrl(base.scheme + ":" + std::string(location));
  Url url = base;
  if (location.substr(0, 1) == "/") {
    url.target = CleanTarget(location);
  } else {
    const std::string path = base.target.substr(0, base.target.find('?'));
    url.target = CleanTarget(path.substr(0, path.rfind('/') + 1) + std::string(location));
  }
  return url;
}

std::string LastPathSegment(const Url& url) {
  const std::string path = url.target.substr(0, url.target.find('?'));
  const std::string segment = path.substr(path.rfind('/') + 1);
  std::string decoded;
  for (size_t i = 0; i < segment.size(); ++i) {
    const int high = segment[i] == '%' && i + 2 < segment.size() ? HexDigit(segment[i + 1]) : -1;
    const int low = high >= 0 ? HexDigit(segment[i + 2]) : -1;
    if (low >= 0) {
      decoded += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      decoded += segment[i];
    }
  }
  return decoded;
}

std::string EncodePath(std::string_view path) {
  std::string encoded;
  for (char c : path) {
    if (IsUnreserved(c) || c == '/') {
      encoded += c;
    } else {
      AppendEncoded(encoded, c);
    }
  }
  return encoded;
}

}  // namespace loopserve
