#include "src/fetch/hub.h"

#include <algorithm>
#include <cstdlib>

#include "src/base/sha256.h"
#include "src/fetch/model_source.h"

namespace loopserve {
namespace {

std::string FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

std::string HubEndpoint(const std::string& given) {
  std::string endpoint = given.empty() ? FromEnvironment("HF_ENDPOINT") : given;
  if (endpoint.empty()) endpoint = kDefaultHubEndpoint;
  while (endpoint.ends_with('/')) endpoint.pop_back();
  return endpoint;
}

std::string HubToken(const std::string& given) { return given.empty() ? FromEnvironment("HF_TOKEN") : given; }

Result<std::string> ToSha256Hex(const std::string& given) {
  if (given.empty()) return given;
  if (!IsSha256Hex(given)) {
    return Status(StatusCode::kInvalidArgument, "a SHA-256 sum has 64 hex digits; got '" + given + "'");
  }
  std::string lower = given;
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
  return lower;
}

}  // namespace loopserve
