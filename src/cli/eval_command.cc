// `loopserve eval`: the benchmark from data to report in one command, and the parent of its steps.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>

#include "eval/datasets.h"
#include "src/base/paths.h"
#include "src/cli/command.h"
#include "src/cli/eval_steps.h"

namespace loopserve {
namespace {

constexpr char kDialoguesName[] = "dialogues.jsonl";

struct EvalCommand {
  EvalBuildOptions build;
  EvalRunOptions run;
  int samples = 0;  ///< 0: one of --data, all of --dialogues
};

/// Builds (from data), runs, reports. What an earlier start has stored is not computed again.
Status RunEval(const EvalCommand& command) {
  EvalRunOptions run = command.run;
  run.samples = command.samples;
  Status built;
  if (run.dialogues_path.empty()) {
    EvalBuildOptions build = command.build;
    build.model = run.model.model;
    build.samples = std::max(1, command.samples);
    run.samples = 0;
    LS_RETURN_IF_ERROR(CreateDirs(run.out_dir));
    // Beside those of an earlier start, which stay if this one is refused.
    run.keep_dialogues_as = (std::filesystem::path(run.out_dir) / kDialoguesName).string();
    run.dialogues_path = run.keep_dialogues_as + ".new";
    build.out_path = run.dialogues_path;
    bool written = false;
    built = BuildDialogueFile(build, &written);
    if (!written) return built;
  }
  const Status ran = RunDialogueFile(run);
  std::error_code ignored;
  if (!run.keep_dialogues_as.empty()) std::filesystem::remove(run.dialogues_path, ignored);
  // A run that failed in parts, or was interrupted, has results too; one that was refused says why, and that is all.
  const bool has_results = ran.ok() || ran.code() == StatusCode::kIoError || ran.code() == StatusCode::kCancelled ||
                           ran.code() == StatusCode::kResourceExhausted;
  const Status reported = has_results ? WriteReport(run.out_dir, "") : Status::Ok();
  LS_RETURN_IF_ERROR(ran);
  LS_RETURN_IF_ERROR(reported);
  return built;
}

/// What CLI11 cannot know: which options belong together, and that those of the whole are none of its steps.
void CheckUsage(const CLI::App& app, const EvalCommand& command) {
  const auto given = [&](const std::string& name) { return app.get_option(name)->count() > 0; };
  if (!app.get_subcommands().empty()) {
    for (const CLI::Option* option : app.get_options()) {
      if (option->count() == 0) continue;
      const std::string step = app.get_subcommands().front()->get_name();
      throw CLI::ValidationError(option->get_name(), "is no option of eval " + step);
    }
    return;
  }
  for (const char* name : {"--model", "--out"}) {
    if (!given(name)) throw CLI::RequiredError(name);
  }
  if (command.build.data_dir.empty() == command.run.dialogues_path.empty()) {
    throw CLI::ValidationError("eval", "needs --data or --dialogues, and not both");
  }
  if (command.run.dialogues_path.empty()) return;
  for (const char* name : {"--datasets", "--positions", "--dependencies", "--mix", "--tokens", "--seed"}) {
    if (given(name)) throw CLI::ValidationError(name, "is for --data: --dialogues are played as they are");
  }
}

}  // namespace

void RegisterEvalCommand(CLI::App& app, CommandContext& context) {
  CLI::App* eval_command = app.add_subcommand("eval", "the benchmark of multi-turn dialogues");
  eval_command->require_subcommand(0, 1);
  auto command = std::make_shared<EvalCommand>();
  AddModelOptions(*eval_command, &command->run.model);
  eval_command->get_option("--model")->required(false);
  eval_command->add_option("--data", command->build.data_dir,
                           "folder with NAME.jsonl, data/NAME.jsonl or NAME/*.jsonl");
  eval_command->add_option("--dialogues", command->run.dialogues_path, "instead of --data: as eval build writes them");
  eval_command->add_option("--out", command->run.out_dir, "folder of everything; a run that is there goes on");
  eval_command
      ->add_option("--samples", command->samples,
                   "dialogues of each dataset, position and dependency; 0: one of --data, all of --dialogues")
      ->check(CLI::Range(0, 100'000))
      ->capture_default_str();
  AddEvalBuildOptions(*eval_command, &command->build);
  AddEvalRunOptions(*eval_command, &command->run);
  eval_command->footer(
      "datasets: " + eval::DatasetNames() +
      "\nWithout a subcommand: builds the dialogues, plays them, writes results and report into --out.");
  RegisterEvalPullCommand(*eval_command, context);
  RegisterEvalBuildCommand(*eval_command, context);
  RegisterEvalRunCommand(*eval_command, context);
  RegisterEvalExportCommands(*eval_command, context);
  RegisterEvalReportCommand(*eval_command, context);
  // Runs after the callback of a subcommand, where there is one.
  eval_command->callback([eval_command, command, &context] {
    CheckUsage(*eval_command, *command);
    if (eval_command->get_subcommands().empty()) context.action = [command] { return RunEval(*command); };
  });
}

}  // namespace loopserve
