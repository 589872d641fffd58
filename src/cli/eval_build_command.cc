// `loopserve eval build`: makes dialogues of the benchmark's datasets and writes them for `run`, `score` and others.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <utility>

#include "eval/dialogue_builder.h"
#include "loopserve/vocabulary.h"
#include "src/base/atomic_file.h"
#include "src/base/format.h"
#include "src/base/log.h"
#include "src/cli/command.h"
#include "src/cli/eval_steps.h"
#include "src/cli/interrupt.h"
#include "src/cli/json_output.h"
#include "src/cli/model_options.h"
#include "src/cli/status_line.h"

namespace loopserve {
namespace {

constexpr char kAll[] = "all";
constexpr int64_t kDefaultTokens = 4096;
constexpr int64_t kMaxTokens = int64_t{1} << 31;

/// What is asked for of `known`, in the order of `known`; kInvalidArgument names the option and what there is.
template <typename T, typename NameOfT>
Result<std::vector<T>> Pick(const std::vector<std::string>& asked, const std::vector<T>& known, const char* option,
                            NameOfT name_of) {
  std::string names;
  for (const T& value : known) names += (names.empty() ? "" : ", ") + std::string(name_of(value));
  for (const std::string& name : asked) {
    const bool is_known =
        name == kAll || std::any_of(known.begin(), known.end(), [&](const T& value) { return name_of(value) == name; });
    if (is_known) continue;
    return Status(StatusCode::kInvalidArgument,
                  std::string(option) + ": there is no \"" + name + "\"; known are " + names + " and all");
  }
  std::vector<T> picked;
  for (const T& value : known) {
    const bool wanted = std::any_of(asked.begin(), asked.end(),
                                    [&](const std::string& name) { return name == kAll || name == name_of(value); });
    if (wanted) picked.push_back(value);
  }
  return picked;
}

struct BuildPlan {
  std::vector<const eval::DatasetSpec*> datasets;
  eval::BuildOptions options;
};

Result<BuildPlan> PlanBuild(const EvalBuildOptions& command) {
  BuildPlan plan;
  std::vector<const eval::DatasetSpec*> known;
  for (const eval::DatasetSpec& dataset : eval::Datasets()) known.push_back(&dataset);
  LS_ASSIGN_OR_RETURN(plan.datasets, Pick(command.datasets, known, "--datasets",
                                          [](const eval::DatasetSpec* dataset) { return dataset->name; }));
  LS_ASSIGN_OR_RETURN(plan.options.positions, Pick(command.positions, eval::AllOf<eval::Position>(), "--positions",
                                                   [](eval::Position value) { return eval::NameOf(value); }));
  LS_ASSIGN_OR_RETURN(plan.options.dependencies,
                      Pick(command.dependencies, eval::AllOf<eval::Dependency>(), "--dependencies",
                           [](eval::Dependency value) { return eval::NameOf(value); }));
  plan.options.samples = command.samples;
  plan.options.mix = command.mix;
  plan.options.seed = command.seed;
  plan.options.cancel = &InterruptFlag();
  std::error_code error;
  if (!std::filesystem::is_directory(command.data_dir, error)) {
    return Status(StatusCode::kNotFound, "--data: " + command.data_dir + " is no folder");
  }
  LS_RETURN_IF_ERROR(CheckJsonPath(command.out_path));
  return plan;
}

Result<std::unique_ptr<Vocabulary>> OpenVocabulary(const EvalBuildOptions& command, int64_t* tokens) {
  LS_ASSIGN_OR_RETURN(const std::string path, ResolveModelPath(command.model));
  LS_ASSIGN_OR_RETURN(std::unique_ptr<Vocabulary> vocabulary, Vocabulary::Open(path));
  const int64_t limit = vocabulary->context_tokens() > 0 ? vocabulary->context_tokens() : kMaxTokens;
  if (command.tokens > limit) {
    return Status(StatusCode::kInvalidArgument, "--tokens " + std::to_string(command.tokens) +
                                                    " is beyond the model's context of " + std::to_string(limit) +
                                                    " tokens");
  }
  *tokens = command.tokens > 0 ? command.tokens : std::min(kDefaultTokens, limit);
  return vocabulary;
}

/// Reads one dataset and adds its dialogues. Lines that were left out are said as warnings.
Status BuildDataset(const EvalBuildOptions& command, const eval::DatasetSpec& dataset,
                    const eval::BuildOptions& options, const eval::CountTokens& count, std::string* lines,
                    std::string* summary) {
  LS_ASSIGN_OR_RETURN(eval::ItemFiles files, eval::ReadItemFiles(command.data_dir, dataset));
  for (const std::string& message : files.messages) Log(LogLevel::kWarning, "left out: " + message);
  const size_t n_items = files.items.size();
  LS_ASSIGN_OR_RETURN(const eval::BuiltDialogues built,
                      eval::BuildDialogues(dataset, std::move(files.items), options, count));
  for (const eval::WrittenDialogue& dialogue : built.dialogues) *lines += eval::FormatDialogue(dialogue) + "\n";
  *summary += std::string(dataset.name) + ": " + FormatCount(static_cast<int64_t>(built.dialogues.size())) +
              " dialogues of " + FormatCount(static_cast<int64_t>(n_items)) + " items, up to " +
              FormatCount(built.longest_tokens) + " tokens; the texts of " + FormatCount(built.cut_turns) + " of " +
              FormatCount(built.turns) + " questions were cut, by " +
              FormatCount(built.cut_turns > 0 ? built.cut_tokens / built.cut_turns : 0) + " tokens on average";
  if (files.skipped > 0) *summary += "; " + FormatCount(files.skipped) + " lines left out";
  if (built.reused_items > 0) *summary += "; items taken again " + FormatCount(built.reused_items) + " times";
  *summary += "\n";
  return Status::Ok();
}

/// The outcome where some datasets failed and others did not: they were named before, one by one.
Status PartlyFailed(const std::vector<std::string>& failed, size_t asked) {
  if (failed.empty()) return Status::Ok();
  std::string names;
  for (const std::string& name : failed) names += (names.empty() ? "" : ", ") + name;
  return Status(StatusCode::kNotFound, std::to_string(failed.size()) + " of " + std::to_string(asked) +
                                           " datasets gave no dialogues (" + names + "); the others were written");
}

}  // namespace

Status BuildDialogueFile(const EvalBuildOptions& command, bool* written) {
  *written = false;
  LS_ASSIGN_OR_RETURN(BuildPlan plan, PlanBuild(command));
  LS_ASSIGN_OR_RETURN(const auto vocabulary, OpenVocabulary(command, &plan.options.tokens));
  const eval::CountTokens count = [&](std::string_view text) {
    const auto tokens = vocabulary->Tokenize(text, /*add_special=*/false, /*parse_special=*/false);
    return static_cast<int64_t>(tokens.ok() ? tokens->size() : text.size());
  };
  StatusLine status_line;
  std::string lines;
  std::string summary;
  std::vector<std::string> failed;
  Status first_error;
  for (const eval::DatasetSpec* dataset : plan.datasets) {
    status_line.Show("building " + std::string(dataset->name), true);
    Status status = BuildDataset(command, *dataset, plan.options, count, &lines, &summary);
    if (status.code() == StatusCode::kCancelled) return status;
    if (status.ok()) continue;
    failed.emplace_back(dataset->name);
    status_line.Clear();
    if (plan.datasets.size() > 1) Log(LogLevel::kError, status.message());
    if (first_error.ok()) first_error = std::move(status);
  }
  status_line.Clear();
  if (lines.empty() && plan.datasets.size() == 1) return first_error;
  if (lines.empty()) return Status(first_error.code(), "no dataset gave dialogues; nothing was written");
  if (command.out_path == "-") {
    std::cout << lines;
  } else {
    LS_RETURN_IF_ERROR(WriteFileAtomically(command.out_path, lines));
    std::cout << summary;
  }
  *written = true;
  return PartlyFailed(failed, plan.datasets.size());
}

void AddEvalBuildOptions(CLI::App& sub, EvalBuildOptions* command) {
  sub.add_option("--datasets", command->datasets, "names, separated by commas, or all")
      ->delimiter(',')
      ->capture_default_str();
  sub.add_option("--positions", command->positions, "where questions stand: begin, middle, end or all")
      ->delimiter(',')
      ->capture_default_str();
  sub.add_option("--dependencies", command->dependencies, "what they are about: same, earlier, cross (turns) or all")
      ->delimiter(',')
      ->capture_default_str();
  sub.add_flag("--mix", command->mix, "dialogues of each dataset and position, taking the dependencies in turn");
  sub.add_option("--tokens", command->tokens, "most tokens of a dialogue; 0: 4096, or the model's own limit if less")
      ->check(CLI::Range(int64_t{0}, kMaxTokens))
      ->capture_default_str();
  sub.add_option("--seed", command->seed, "which items, in which order")->capture_default_str();
}

void RegisterEvalBuildCommand(CLI::App& eval_command, CommandContext& context) {
  auto options = std::make_shared<EvalBuildOptions>();
  CLI::App* build = eval_command.add_subcommand("build", "make dialogues of datasets, for run, score and others");
  AddModelNameOption(*build, &options->model);
  build->add_option("--data", options->data_dir, "folder with NAME.jsonl, data/NAME.jsonl or NAME/*.jsonl")->required();
  build->add_option("--out", options->out_path, "the file of dialogues; -: stdout")->required();
  build->add_option("--samples", options->samples, "dialogues of each dataset, position and dependency")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  AddEvalBuildOptions(*build, options.get());
  build->footer("datasets: " + eval::DatasetNames() +
                "\nA dataset without a readable file is named, the others go on, and the exit code is 1.");
  build->callback([options, &context] {
    context.action = [options] {
      bool written = false;
      return BuildDialogueFile(*options, &written);
    };
  });
}

}  // namespace loopserve
