// A file from the web that arrives whole or not at all: resumed after breaks, checked, and only then given its name.
// Thread rule: free function; callbacks run on the calling thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "loopserve/status.h"
#include "src/fetch/http_get.h"

namespace loopserve {

enum class PullStage : uint8_t {
  kConnecting,
  kDownloading,
  kRetrying,   ///< after an error; `note` says which
  kVerifying,  ///< hashing
  kWaitingForLock,
  kUnpacking,
};

struct PullProgress {
  PullStage stage = PullStage::kConnecting;
  int64_t received_bytes = 0;  ///< of the file, resumed ones included
  int64_t resumed_bytes = 0;   ///< of these, from an earlier pull or before a break
  std::optional<int64_t> total_bytes;
  std::string note;
};

using ProgressCallback = std::function<void(const PullProgress&)>;

struct DownloadLimits {
  HttpTimeouts timeouts;
  int max_attempts = 6;        ///< connections in a row that brought less than a MiB
  int first_backoff_ms = 500;  ///< doubles with each of these, at most 30 s
  int max_redirects = 8;
};

/// What a file must begin like: a login page or a wrong address is noticed with its first bytes.
struct FileKind {
  std::string_view magic;
  std::string_view name;  ///< for messages: "it is not NAME"
};
inline constexpr FileKind kGgufFile = {"GGUF", "a GGUF file"};
inline constexpr FileKind kZipFile = {"PK\x03\x04", "a zip archive"};

struct DownloadRequest {
  Url url;
  std::string bearer_token;          ///< for the origin of `url` only
  bool trust_origin_sha256 = false;  ///< the origin's tags are SHA-256 sums (a model hub)
  std::filesystem::path target;      ///< its folder is created; replaced if it exists
  FileKind kind = kGgufFile;
  std::string sha256;  ///< lower case; empty: the origin's if trusted, else the length alone is checked
  DownloadLimits limits;
  const std::atomic<bool>* cancel = nullptr;
};

/// Errors: kNotFound, kIoError (the network; the part stays for a resume), kResourceExhausted (disk; the part stays),
/// kCorruptData (wrong checksum, or another kind of file: the part is deleted), kCancelled (the part stays).
Status Download(const DownloadRequest& request, const ProgressCallback& on_progress);

/// kCorruptData unless the file begins like one of its kind and, where sha256 is not empty, has that hash.
Status VerifyFile(const std::filesystem::path& path, const FileKind& kind, const std::string& sha256,
                  const std::atomic<bool>* cancel);
inline Status VerifyModelFile(const std::filesystem::path& path, const std::string& sha256,
                              const std::atomic<bool>* cancel) {
  return VerifyFile(path, kGgufFile, sha256, cancel);
}

}  // namespace loopserve
