#include <algorithm>
#include <fstream>

#include "src/base/sha256.h"
#include "src/server/http_server.h"

namespace loopserve::server {

Result<std::vector<std::string>> ReadApiKeys(const std::string& path) {
  std::ifstream file(path);
  if (!file) return Status(StatusCode::kNotFound, "cannot read the API keys in " + path);
  std::vector<std::string> keys;
  for (std::string line; std::getline(file, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    if (line.empty() || line[0] == '#') continue;
    const bool printable = std::ranges::all_of(line, [](char c) { return c > ' ' && c < 127; });
    if (!printable)
      return Status(StatusCode::kInvalidArgument, path + ": a key may have no spaces or control characters");
    keys.push_back(line);
  }
  if (file.bad()) return Status(StatusCode::kIoError, "cannot read the API keys in " + path);
  if (keys.empty()) return Status(StatusCode::kInvalidArgument, path + " has no API key");
  return keys;
}

ApiKeys::ApiKeys(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) digests_.push_back(Sha256Hex(key));
}

std::optional<std::string> ApiKeys::TenantOf(const std::string& key) const {
  // Digests are of one length, and what differs in them says nothing about the key.
  const std::string digest = Sha256Hex(key);
  size_t found = digests_.size();
  for (size_t i = 0; i < digests_.size(); ++i) {
    unsigned char difference = 0;
    for (size_t c = 0; c < digest.size(); ++c) difference |= static_cast<unsigned char>(digest[c] ^ digests_[i][c]);
    found = difference == 0 ? i : found;
  }
  if (found == digests_.size()) return std::nullopt;
  return digests_[found];
}

}  // namespace loopserve::server
