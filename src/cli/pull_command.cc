// `loopserve pull`: gets a model, showing its progress, and prints where it is.
#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <memory>

#include "src/base/format.h"
#include "src/cli/command.h"
#include "src/cli/interrupt.h"
#include "src/cli/status_line.h"
#include "src/fetch/model_source.h"
#include "src/fetch/pull.h"

namespace loopserve {
namespace {

struct PullCommand {
  std::string reference;
  std::string sha256;
  bool force = false;
};

class PullDisplay {
 public:
  void Show(const PullProgress& progress) {
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
        return line_.Show("waiting: another process pulls the same model", changed);
      case PullStage::kUnpacking:
        return line_.Show("unpacking", changed);
    }
  }
  void Clear() { line_.Clear(); }

 private:
  std::string Downloading(const PullProgress& progress) {
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

  StatusLine line_;
  PullStage stage_ = PullStage::kWaitingForLock;
  std::chrono::steady_clock::time_point begin_{};
  int64_t resumed_bytes_ = 0;
};

Status RunPull(const PullCommand& command) {
  PullRequest request;
  request.reference = command.reference;
  request.sha256 = command.sha256;
  request.force = command.force;
  request.cancel = &InterruptFlag();
  PullDisplay display;
  const Result<std::string> path = Pull(request, [&](const PullProgress& progress) { display.Show(progress); });
  display.Clear();
  LS_RETURN_IF_ERROR(path.status());
  std::cout << *path << "\n";
  return Status::Ok();
}

}  // namespace

void RegisterPullCommand(CLI::App& app, CommandContext& context) {
  auto command = std::make_shared<PullCommand>();
  CLI::App* sub = app.add_subcommand("pull", "get a model and print where it is");
  std::string names = "known names:\n";
  for (const KnownModel& model : KnownModels()) names += "  " + model.name + ": " + model.description + "\n";
  sub->footer(names + "A pull that was cut off is resumed by the next one.");
  sub->add_option("model", command->reference, "a known name, hf:OWNER/REPO/FILE.gguf or an http(s) URL")->required();
  sub->add_option("--sha256", command->sha256, "the checksum that the file must have");
  sub->add_flag("--force", command->force, "download even if it is in the cache");
  sub->callback([command, &context] { context.action = [command] { return RunPull(*command); }; });
}

}  // namespace loopserve
