// SHA-256, by which downloaded models and stored files are checked. Over OpenSSL's EVP interface.
// Thread rule: one thread at a time per hasher; the free functions are thread-safe.
#pragma once

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "loopserve/status.h"

struct evp_md_ctx_st;

namespace loopserve {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(const void* data, size_t size_bytes);
  /// 64 lower-case hex digits. Afterwards the hasher is empty again.
  std::string FinishHex();

 private:
  evp_md_ctx_st* context_;
};

std::string Sha256Hex(std::string_view data);

/// Hash of a whole file. Errors: kNotFound, kIoError, kCancelled (the flag, looked at every MiB).
Result<std::string> Sha256OfFile(const std::filesystem::path& path, const std::atomic<bool>* cancel = nullptr);

/// True for 64 hex digits of either case.
bool IsSha256Hex(std::string_view text);

}  // namespace loopserve
