// `loopserve eval run`: plays a file of dialogues under several policies, resumably.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <span>

#include "eval/result_report.h"
#include "eval/runner.h"
#include "src/base/format.h"
#include "src/base/log.h"
#include "src/base/sha256.h"
#include "src/cli/command.h"
#include "src/cli/eval_player.h"
#include "src/cli/eval_results.h"
#include "src/cli/eval_steps.h"
#include "src/cli/interrupt.h"
#include "src/cli/json_output.h"
#include "src/cli/model_options.h"
#include "src/cli/policy_settings.h"
#include "src/cli/status_line.h"

namespace loopserve {
namespace {

/// The policies asked for, each once, with their settings; fidelity is measured against dense, which then comes first.
Result<eval::RunInputs> PoliciesOf(const EvalRunOptions& command) {
  LS_ASSIGN_OR_RETURN(std::vector<Policy> policies, ParsePolicies(command.policies));
  if (policies.empty()) return Status(StatusCode::kInvalidArgument, "--policies names none");
  if (command.fidelity) policies.insert(policies.begin(), Policy());
  eval::RunInputs specs;
  for (const Policy& policy : policies) {
    const bool known = std::ranges::any_of(specs, [&](const auto& spec) { return spec.first == policy.ToString(); });
    if (!known) specs.emplace_back(policy.ToString(), SettingsOf(policy));
  }
  return specs;
}

/// Each by the hash of all that it says.
eval::RunInputs HashesOf(const std::vector<eval::WrittenDialogue>& dialogues) {
  eval::RunInputs hashes;
  for (const eval::WrittenDialogue& dialogue : dialogues) {
    const std::string line = eval::FormatDialogue(dialogue);
    Sha256 hasher;
    hasher.Update(line.data(), line.size());
    hashes.emplace_back(dialogue.id, hasher.FinishHex());
  }
  return hashes;
}

/// What answers and scores depend on beside the dialogue and the policy.
Result<eval::RunInputs> InputsOf(const EvalRunOptions& command) {
  LS_ASSIGN_OR_RETURN(const std::string model_path, ResolveModelPath(command.model.model));
  LS_ASSIGN_OR_RETURN(const std::string model_sha256, Sha256OfFile(model_path, &InterruptFlag()));
  return eval::RunInputs{{"model_sha256", model_sha256},
                         {"context", std::to_string(command.model.context_tokens)},
                         {"kv_type", command.model.kv_type},
                         {"linear", command.model.linear},
                         {"max_answer_tokens", std::to_string(command.max_answer_tokens)},
                         {"fidelity", command.fidelity ? "yes" : "no"}};
}

/// The folder has taken the dialogues: their file may replace that of the start before.
Status KeepDialogues(const EvalRunOptions& command) {
  if (command.keep_dialogues_as.empty()) return Status::Ok();
  std::error_code error;
  std::filesystem::rename(command.dialogues_path, command.keep_dialogues_as, error);
  if (error) return Status(StatusCode::kIoError, "cannot write " + command.keep_dialogues_as + ": " + error.message());
  return Status::Ok();
}

void ShowProgress(const eval::RunProgress& progress, StatusLine* status_line) {
  std::string text = "eval " + FormatCount(progress.done) + " of " + FormatCount(progress.total);
  if (progress.left_ms) text += ", " + FormatMilliseconds(*progress.left_ms) + " left";
  text += ": " + progress.dialogue->id + ", " + progress.policy;
  status_line->Show(text, /*now=*/true);
  // Where nobody looks at a terminal, the log is where a long run says how far it is.
  if (!status_line->visible()) Log(LogLevel::kInfo, text);
}

/// Writes the JSON and the table of all that is stored, by this start and earlier ones.
Status Summarize(const EvalRunOptions& command, eval::ResultStore& store, const eval::RunOutcome& outcome) {
  LS_ASSIGN_OR_RETURN(const eval::StoredResults results, store.Load());
  std::cout << eval::ScoreTable(results.played) << FormatCount(outcome.before + outcome.played) << " of "
            << FormatCount(outcome.total) << " done";
  if (outcome.before > 0) std::cout << ", " << FormatCount(outcome.before) << " of them before";
  if (outcome.failed > 0) std::cout << ", " << FormatCount(outcome.failed) << " failed";
  std::cout << "; dialogues times policies\n";
  return WriteResultsJson(ResultsJsonPath(command.out_dir), results);
}

/// What remains to be said of a run that came to its end.
Status VerdictOf(const eval::RunOutcome& outcome, const std::string& dialogues_path, int64_t left_out) {
  std::string text;
  if (outcome.failed > 0) {
    text = std::to_string(outcome.failed) + " of " + std::to_string(outcome.total) +
           " failed, the first: " + outcome.first_error;
  }
  if (left_out > 0) {
    text += (text.empty() ? "" : "; ") + std::to_string(left_out) + " broken line" + (left_out > 1 ? "s" : "") +
            " of " + dialogues_path + " left out";
  }
  return text.empty() ? Status::Ok() : Status(StatusCode::kIoError, text);
}

}  // namespace

Status RunDialogueFile(const EvalRunOptions& command) {
  LS_ASSIGN_OR_RETURN(const eval::RunInputs policies, PoliciesOf(command));
  LS_ASSIGN_OR_RETURN(eval::ReadableDialogues file, eval::ReadGoodDialogueFile(command.dialogues_path));
  for (const std::string& message : file.messages) Log(LogLevel::kWarning, "left out: " + message);
  eval::RunPlan plan;
  plan.dialogues = eval::TakeSamples(std::move(file.dialogues), command.samples);
  for (const auto& [spec, settings] : policies) plan.policies.push_back(spec);
  LS_ASSIGN_OR_RETURN(const eval::RunInputs inputs, InputsOf(command));
  LS_ASSIGN_OR_RETURN(eval::ResultStore store, eval::ResultStore::OpenRun(command.out_dir, inputs));
  LS_RETURN_IF_ERROR(store.Define(policies, HashesOf(plan.dialogues)));
  LS_RETURN_IF_ERROR(KeepDialogues(command));
  LS_RETURN_IF_ERROR(CheckJsonPath(ResultsJsonPath(command.out_dir)));
  LS_ASSIGN_OR_RETURN(const std::shared_ptr<Engine> engine, OpenEngine(command.model));
  LS_RETURN_IF_ERROR(store.Note(eval::kModelNote, engine->model().description));
  LS_RETURN_IF_ERROR(store.Note(eval::kProgramNote, std::string("loopserve ") + LOOPSERVE_VERSION));
  if (!engine->model().has_chat_template) {
    Log(LogLevel::kWarning, "this model has no chat template; it continues the plain text");
  }
  const auto player = MakeEvalPlayer(engine, {.max_answer_tokens = command.max_answer_tokens,
                                              .fidelity = command.fidelity,
                                              .scratch_dir = command.out_dir,
                                              .cancel = &InterruptFlag()});
  StatusLine status_line;
  const eval::RunOutcome outcome = eval::PlayAll(
      plan, *player, store, {.cancel = &InterruptFlag(), .on_progress = [&](const eval::RunProgress& progress) {
                               ShowProgress(progress, &status_line);
                             }});
  status_line.Clear();
  const Status summarized = Summarize(command, store, outcome);
  LS_RETURN_IF_ERROR(outcome.status);
  LS_RETURN_IF_ERROR(summarized);
  const std::string& kept = command.keep_dialogues_as;
  return VerdictOf(outcome, kept.empty() ? command.dialogues_path : kept, file.left_out);
}

void AddEvalRunOptions(CLI::App& command, EvalRunOptions* options) {
  command.add_option("--policies", options->policies, "policies, separated by commas")->capture_default_str();
  command.add_flag("--fidelity", options->fidelity,
                   "also how near to dense each policy is, on dense's answers and on the references");
  command.add_option("--max-answer-tokens", options->max_answer_tokens, "no answer is longer; 0: as the tasks say")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 31))
      ->capture_default_str();
}

void RegisterEvalRunCommand(CLI::App& eval_command, CommandContext& context) {
  auto options = std::make_shared<EvalRunOptions>();
  CLI::App* run = eval_command.add_subcommand("run", "play dialogues under policies, score and store every answer");
  AddModelOptions(*run, &options->model);
  run->add_option("--dialogues", options->dialogues_path, "dialogues, as eval build writes them; -: stdin")->required();
  run->add_option("--out", options->out_dir, "folder of the results; a run that is there goes on")->required();
  run->add_option("--samples", options->samples, "dialogues of each dataset, position and dependency; 0: all")
      ->check(CLI::Range(0, 1'000'000))
      ->capture_default_str();
  AddEvalRunOptions(*run, options.get());
  run->callback([options, &context] { context.action = [options] { return RunDialogueFile(*options); }; });
}

}  // namespace loopserve
