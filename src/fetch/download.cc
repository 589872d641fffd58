#include "src/fetch/download.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <fstream>
#include <thread>

#include "src/base/format.h"
#include "src/base/log.h"
#include "src/base/paths.h"
#include "src/base/sha256.h"
#include "src/fetch/part_file.h"

namespace loopserve {
namespace {

constexpr int64_t kRealProgressBytes = int64_t{1} << 20;
constexpr int kMaxBackoffMs = 30000;

struct ContentRange {
  int64_t first = -1;            // -1: "*"
  std::optional<int64_t> total;  // empty: "*"
};

bool TakeNumber(std::string_view& text, int64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  if (error != std::errc() || *value < 0) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

// "bytes 5-9/10", "bytes */10" or "bytes 5-9/*".
std::optional<ContentRange> ParseContentRange(std::string_view text) {
  ContentRange range;
  if (!text.starts_with("bytes ")) return std::nullopt;
  text.remove_prefix(6);
  int64_t last = 0;
  if (text.starts_with("*")) {
    text.remove_prefix(1);
  } else {
    if (!TakeNumber(text, &range.first) || !text.starts_with("-")) return std::nullopt;
    text.remove_prefix(1);
    if (!TakeNumber(text, &last) || last < range.first) return std::nullopt;
  }
  if (!text.starts_with("/")) return std::nullopt;
  text.remove_prefix(1);
  if (text == "*") return range;
  int64_t total = 0;
  if (!TakeNumber(text, &total) || !text.empty()) return std::nullopt;
  range.total = total;
  return range;
}

// What If-Range may carry: a strong ETag, or the date where there is none.
std::string ValidatorOf(const HttpHead& head) {
  if (!head.etag.empty() && !head.etag.starts_with("W/")) return head.etag;
  return head.last_modified;
}

std::string TooLittleDisk(const std::filesystem::path& folder, const std::string& detail) {
  return "not enough space in " + folder.string() + detail + "; free some, or set LOOPSERVE_CACHE to a larger disk";
}

// One download over as many connections as it takes.
class Downloader {
 public:
  Downloader(const DownloadRequest& request, const ProgressCallback& on_progress, PartFile part)
      : request_(request), on_progress_(on_progress), part_(std::move(part)), sha256_(request.sha256) {
    progress_.resumed_bytes = part_.size_bytes();
  }

  Status Run() {
    LS_RETURN_IF_ERROR(Fetch());
    Report(PullStage::kVerifying);
    const Status verified = VerifyFile(part_.path(), request_.kind, sha256_, request_.cancel);
    if (verified.code() == StatusCode::kCorruptData) {
      part_.Discard();
      return Status(StatusCode::kCorruptData,
                    request_.url.ToString() + ": " + verified.message() + "; what was downloaded has been deleted");
    }
    LS_RETURN_IF_ERROR(verified);
    if (sha256_.empty()) Log(LogLevel::kInfo, "no checksum is known for " + request_.url.ToString());
    return part_.MoveTo(request_.target);
  }

 private:
  enum class Step { kDone, kRetry, kRetryAtOnce, kFail };

  Status Fetch() {
    int fruitless = 0;
    while (true) {
      if (Complete()) return Status::Ok();
      const int64_t before = part_.size_bytes();
      HttpOutcome outcome = Connect();
      const Step step = Judge(outcome);
      if (step == Step::kDone) return Status::Ok();
      if (step == Step::kFail) return error_;
      const bool fruitful = !part_.meta().validator.empty() && part_.size_bytes() >= before + kRealProgressBytes;
      fruitless = fruitful ? 0 : fruitless + 1;
      if (fruitless >= request_.limits.max_attempts) {
        return error_.WithContext("gave up after " + std::to_string(fruitless) + " attempts (pull again to resume)");
      }
      progress_.resumed_bytes = part_.size_bytes();
      if (step == Step::kRetry) LS_RETURN_IF_ERROR(Wait(fruitless, outcome.head.retry_after));
    }
  }

  bool Complete() const {
    return part_.size_bytes() > 0 && part_.meta().total_bytes == part_.size_bytes() &&
           (!sha256_.empty() || !request_.trust_origin_sha256);
  }

  HttpOutcome Connect() {
    HttpGetRequest get;
    get.url = request_.url;
    get.bearer_token = request_.bearer_token;
    get.timeouts = request_.limits.timeouts;
    get.max_redirects = request_.limits.max_redirects;
    get.cancel = request_.cancel;
    if (part_.size_bytes() > 0) {
      get.headers["Range"] = "bytes=" + std::to_string(part_.size_bytes()) + "-";
      get.headers["If-Range"] = part_.meta().validator;
    }
    restart_ = false;
    local_error_ = Status::Ok();
    Report(PullStage::kConnecting);
    return HttpGet(
        get, [this](const HttpHead& head) { return Begin(head); },
        [this](std::string_view bytes) { return Take(bytes); });
  }

  // Decides on an answer's head whether its body continues the part, replaces it, or is useless.
  bool Begin(const HttpHead& head) {
    if (head.status == 206) {
      const std::optional<ContentRange> range = ParseContentRange(head.content_range);
      const bool continues = range && range->first == part_.size_bytes() && part_.size_bytes() > 0 &&
                             (!range->total || !part_.meta().total_bytes || range->total == part_.meta().total_bytes) &&
                             (ValidatorOf(head).empty() || ValidatorOf(head) == part_.meta().validator);
      if (!continues) restart_ = true;
      return continues && EnoughDisk();
    }
    progress_.resumed_bytes = 0;
    local_error_ = part_.Restart({request_.url.ToString(), ValidatorOf(head), head.content_length_bytes});
    return local_error_.ok() && EnoughDisk();
  }

  bool EnoughDisk() {
    if (!part_.meta().total_bytes) return true;
    const auto folder = request_.target.parent_path();
    std::error_code error;
    const std::filesystem::space_info space = std::filesystem::space(folder, error);
    const int64_t missing = *part_.meta().total_bytes - part_.size_bytes();
    if (error || missing <= 0 || static_cast<uint64_t>(missing) <= space.available) return true;
    local_error_ = Status(StatusCode::kResourceExhausted,
                          TooLittleDisk(folder, ": " + FormatBytes(static_cast<uint64_t>(missing)) + " more needed, " +
                                                    FormatBytes(space.available) + " free"));
    return false;
  }

  bool Take(std::string_view bytes) {
    const bool first = part_.size_bytes() < static_cast<int64_t>(request_.kind.magic.size());
    local_error_ = part_.Append(bytes);
    if (local_error_.code() == StatusCode::kResourceExhausted) {
      local_error_ = Status(StatusCode::kResourceExhausted,
                            TooLittleDisk(request_.target.parent_path(), " (" + local_error_.message() + ")") +
                                "; pull again to go on from " + FormatBytes(static_cast<uint64_t>(part_.size_bytes())));
    }
    if (local_error_.ok() && first) local_error_ = CheckMagic();
    if (!local_error_.ok()) return false;
    if (part_.meta().total_bytes && part_.size_bytes() > *part_.meta().total_bytes) restart_ = true;
    Report(PullStage::kDownloading);
    return !restart_;
  }

  // A login page or a wrong address is noticed with the first bytes, not after gigabytes.
  Status CheckMagic() {
    LS_ASSIGN_OR_RETURN(const std::string head, part_.Head(request_.kind.magic.size()));
    if (request_.kind.magic.starts_with(head)) return Status::Ok();
    part_.Discard();
    return Status(StatusCode::kCorruptData, request_.url.ToString() + " is not " + std::string(request_.kind.name));
  }

  Step Judge(const HttpOutcome& outcome) {
    if (sha256_.empty() && request_.trust_origin_sha256) sha256_ = outcome.head.origin_sha256;
    error_ = local_error_.ok() ? outcome.status : local_error_;
    if (!local_error_.ok()) return Step::kFail;
    if (restart_ || outcome.head.status == 416) return JudgeUseless(outcome.head);
    if (outcome.status.ok()) {
      const std::optional<int64_t> total = part_.meta().total_bytes;
      if (!total || part_.size_bytes() == *total) return Step::kDone;
      error_ = Status(StatusCode::kIoError, "the connection ended after " + std::to_string(part_.size_bytes()) +
                                                " of " + std::to_string(*total) + " bytes");
      return Step::kRetry;
    }
    return outcome.transient ? Step::kRetry : Step::kFail;
  }

  // The server has something else than what the part holds the beginning of, unless the part is all of it.
  Step JudgeUseless(const HttpHead& head) {
    const std::optional<ContentRange> range = ParseContentRange(head.content_range);
    const bool whole = head.status == 416 && range && range->total == part_.size_bytes() && part_.size_bytes() > 0;
    if (whole) return Step::kDone;
    error_ = Status(StatusCode::kIoError, "the server's answer does not fit what was downloaded before");
    if (const Status status = part_.Restart({request_.url.ToString(), "", std::nullopt}); !status.ok()) {
      error_ = status;
      return Step::kFail;
    }
    return Step::kRetryAtOnce;
  }

  Status Wait(int fruitless, const std::string& retry_after) {
    int wait_ms = request_.limits.first_backoff_ms;
    for (int i = 1; i < fruitless && wait_ms < kMaxBackoffMs; ++i) wait_ms *= 2;
    int seconds = 0;
    const auto [end, error] = std::from_chars(retry_after.data(), retry_after.data() + retry_after.size(), seconds);
    if (error == std::errc() && seconds > 0) wait_ms = std::max(wait_ms, std::min(seconds, 60) * 1000);
    wait_ms = std::min(wait_ms, retry_after.empty() ? kMaxBackoffMs : 60000);
    Report(PullStage::kRetrying, error_.message());
    Log(LogLevel::kInfo, "retrying in " + std::to_string(wait_ms) + " ms: " + error_.message());
    const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(wait_ms);
    while (std::chrono::steady_clock::now() < until) {
      if (request_.cancel != nullptr && request_.cancel->load()) return Status(StatusCode::kCancelled, "cancelled");
      std::this_thread::sleep_for(std::chrono::milliseconds(std::min(wait_ms, 20)));
    }
    return Status::Ok();
  }

  void Report(PullStage stage, const std::string& note = "") {
    if (!on_progress_) return;
    progress_.stage = stage;
    progress_.received_bytes = part_.size_bytes();
    progress_.total_bytes = part_.meta().total_bytes;
    progress_.note = note;
    on_progress_(progress_);
  }

  const DownloadRequest& request_;
  const ProgressCallback& on_progress_;
  PartFile part_;
  std::string sha256_;
  PullProgress progress_;
  bool restart_ = false;  // the answer does not continue the part
  Status local_error_;    // why a callback stopped the transfer
  Status error_;          // of the last connection
};

}  // namespace

Status Download(const DownloadRequest& request, const ProgressCallback& on_progress) {
  LS_ASSIGN_OR_RETURN(PartFile part, PartFile::Open(request.target, request.url.ToString()));
  return Downloader(request, on_progress, std::move(part)).Run();
}

Status VerifyFile(const std::filesystem::path& path, const FileKind& kind, const std::string& sha256,
                  const std::atomic<bool>* cancel) {
  std::ifstream in(path, std::ios::binary);
  std::string magic(kind.magic.size(), '\0');
  in.read(magic.data(), static_cast<std::streamsize>(magic.size()));
  if (!in || magic != kind.magic) return Status(StatusCode::kCorruptData, "it is not " + std::string(kind.name));
  if (sha256.empty()) return Status::Ok();
  LS_ASSIGN_OR_RETURN(const std::string actual, Sha256OfFile(path, cancel));
  if (actual == sha256) return Status::Ok();
  return Status(StatusCode::kCorruptData, "wrong checksum: SHA-256 is " + actual + ", expected " + sha256);
}

}  // namespace loopserve
