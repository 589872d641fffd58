#include "src/cli/pull_display.h"

#include "src/base/format.h"

namespace loopserve {
namespace {

std::string Unpacking(const PullProgress& progress) {
  if (progress.received_bytes == 0) return "unpacking";
  return "unpacking " + FormatBytes(static_cast<uint64_t>(progress.received_bytes));
}

}  // namespace

void PullDisplay::Show(const PullProgress& progress) {
  const bool changed = progress.stage != stage_;
  stage_ = progress.stage;
  switch (progress.stage) {
    case PullStage::kConnecting:
      return line_.Show("connecting", changed);
    case PullStage::kDownloading:
      return line_.Show(Downloading(progress), changed);
    case PullStage::kRetrying:
      return line_.Show("trying again soon: " + progress.note, true);
    case PullStage::kVerifying:
      return line_.Show("checking", changed);
    case PullStage::kWaitingForLock:
      return line_.Show("waiting: another process pulls the same", changed);
    case PullStage::kUnpacking:
      return line_.Show(Unpacking(progress), changed);
  }
}

std::string PullDisplay::Downloading(const PullProgress& progress) {
  if (!progress.note.empty()) return "downloading " + progress.note;
  const auto now = std::chrono::steady_clock::now();
  if (progress.resumed_bytes != resumed_bytes_ || begin_ == std::chrono::steady_clock::time_point{}) {
    begin_ = now;
    resumed_bytes_ = progress.resumed_bytes;
  }
  const auto received = static_cast<double>(progress.received_bytes);
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  const double rate = seconds > 0.2 ? (received - static_cast<double>(resumed_bytes_)) / seconds : 0;
  std::string text = FormatBytes(static_cast<uint64_t>(progress.received_bytes));
  if (progress.total_bytes && *progress.total_bytes > 0) {
    const auto total = static_cast<double>(*progress.total_bytes);
    text = ProgressBar(received / total, 30) + " " + FormatFixed(100 * received / total, 0) + "% " + text + " of " +
           FormatBytes(static_cast<uint64_t>(*progress.total_bytes));
    if (rate > 0) text += ", " + FormatMilliseconds((total - received) / rate * 1000) + " left";
  }
  if (rate > 0) text += ", " + FormatBytes(static_cast<uint64_t>(rate)) + "/s";
  return text;
}

}  // namespace loopserve
