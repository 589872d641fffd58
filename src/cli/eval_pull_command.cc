// `loopserve eval pull`: gets the full LongBench release and prints the folder for --data.
#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "eval/datasets.h"
#include "src/cli/command.h"
#include "src/cli/interrupt.h"
#include "src/cli/pull_display.h"
#include "src/fetch/pull_archive.h"

namespace loopserve {
namespace {

/// On the model hub.
constexpr char kReleasePath[] = "/datasets/THUDM/LongBench/resolve/main/data.zip";

struct EvalPullCommand {
  std::string url;
  std::string sha256;
  bool force = false;
};

Status RunEvalPull(const EvalPullCommand& command) {
  ArchivePull request;
  request.name = "longbench";
  request.url = command.url.empty() ? kReleasePath : command.url;
  for (const eval::DatasetSpec& dataset : eval::Datasets()) {
    request.members.push_back("data/" + std::string(dataset.name) + ".jsonl");
  }
  request.sha256 = command.sha256;
  request.force = command.force;
  request.cancel = &InterruptFlag();
  PullDisplay display;
  const Result<std::string> folder =
      PullArchive(request, [&](const PullProgress& progress) { display.Show(progress); });
  display.Clear();
  LS_RETURN_IF_ERROR(folder.status());
  std::cout << *folder << "\n";
  return Status::Ok();
}

}  // namespace

void RegisterEvalPullCommand(CLI::App& eval_command, CommandContext& context) {
  auto command = std::make_shared<EvalPullCommand>();
  CLI::App* pull = eval_command.add_subcommand("pull", "get LongBench's release and print the folder for --data");
  pull->add_option("--url", command->url, "another place of the archive (data.zip), http(s); default: the model hub");
  pull->add_option("--sha256", command->sha256, "the checksum that the archive must have");
  pull->add_flag("--force", command->force, "download even if it is in the cache");
  pull->footer("A pull that was cut off is resumed by the next one. The data has licences of its own.");
  pull->callback([command, &context] { context.action = [command] { return RunEvalPull(*command); }; });
}

}  // namespace loopserve
