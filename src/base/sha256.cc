#include "src/base/sha256.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "src/base/check.h"
#include "src/base/errno_status.h"
#include "src/base/unique_fd.h"

namespace loopserve {

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  LS_CHECK(context_ != nullptr);
  LS_CHECK(EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_); }

void Sha256::Update(const void* data, size_t size_bytes) {
  LS_CHECK(EVP_DigestUpdate(context_, data, size_bytes) == 1);
}

std::string Sha256::FinishHex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int digest_bytes = 0;
  LS_CHECK(EVP_DigestFinal_ex(context_, digest, &digest_bytes) == 1);
  LS_CHECK(EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1);
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (unsigned int i = 0; i < digest_bytes; ++i) {
    hex += kDigits[digest[i] >> 4];
    hex += kDigits[digest[i] & 15];
  }
  return hex;
}

std::string Sha256Hex(std::string_view data) {
  Sha256 hasher;
  hasher.Update(data.data(), data.size());
  return hasher.FinishHex();
}

Result<std::string> Sha256OfFile(const std::filesystem::path& path, const std::atomic<bool>* cancel) {
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus("cannot open " + path.string(), errno);
  Sha256 hasher;
  std::vector<char> buffer(size_t{1} << 20);
  while (true) {
    if (cancel != nullptr && cancel->load(std::memory_order_relaxed))
      return Status(StatusCode::kCancelled, "cancelled");
    const ssize_t n = read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("cannot read " + path.string(), errno);
    if (n == 0) return hasher.FinishHex();
    hasher.Update(buffer.data(), static_cast<size_t>(n));
  }
}

bool IsSha256Hex(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
         });
}

}  // namespace loopserve
