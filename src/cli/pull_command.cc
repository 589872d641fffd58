// `loopserve pull`: gets a model, showing its progress, and prints where it is.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "src/cli/command.h"
#include "src/cli/interrupt.h"
#include "src/cli/pull_display.h"
#include "src/fetch/model_source.h"
#include "src/fetch/pull.h"

namespace loopserve {
namespace {

struct PullCommand {
  std::string reference;
  std::string sha256;
  bool force = false;
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
