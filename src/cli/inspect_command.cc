// `loopserve inspect`: what a model attends to on the user's own text, turn by turn.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include "bench/text_source.h"
#include "loopserve/inspect.h"
#include "src/base/atomic_file.h"
#include "src/base/format.h"
#include "src/cli/attention_picture.h"
#include "src/cli/command.h"
#include "src/cli/inspect_report.h"
#include "src/cli/interrupt.h"
#include "src/cli/model_options.h"
#include "src/cli/status_line.h"

namespace loopserve {
namespace {

struct InspectCommand {
  ModelOptions model;
  std::vector<std::string> text_paths;
  int64_t max_tokens = 0;
  int turns = 1;
  InspectOptions options;
  int picture_turn = 0;  ///< from 1 on; 0: the last
  bool has_json = false;
  std::string json_path;
  std::string png_path;
};

using Turns = std::vector<std::vector<Token>>;

Status CheckCommand(const InspectCommand& command) {
  if (command.text_paths.size() > 1 && command.turns > 1) {
    return Status(StatusCode::kInvalidArgument, "--turns cuts one text; with several each is a turn");
  }
  if (command.text_paths.size() > 1 && command.max_tokens > 0) {
    return Status(StatusCode::kInvalidArgument, "--tokens shortens one text; with several each is a turn");
  }
  if (command.png_path == "-") return Status(StatusCode::kInvalidArgument, "--png needs a file, not stdout");
  const auto n_turns = static_cast<int>(std::max(command.text_paths.size(), static_cast<size_t>(command.turns)));
  if (command.picture_turn > n_turns) {
    return Status(StatusCode::kInvalidArgument, "--turn " + std::to_string(command.picture_turn) + ": there are only " +
                                                    std::to_string(n_turns) + " turns");
  }
  if (command.has_json) LS_RETURN_IF_ERROR(CheckJsonPath(command.json_path));
  return command.png_path.empty() ? Status::Ok() : AtomicFile::Create(command.png_path).status();
}

/// The texts' tokens, one list a turn; begin-of-text where the model wants one.
Result<Turns> ReadTurns(const InspectCommand& command, const Engine& engine) {
  Turns turns;
  for (const std::string& path : command.text_paths) {
    LS_ASSIGN_OR_RETURN(const std::string text, bench::ReadText(path));
    LS_ASSIGN_OR_RETURN(std::vector<Token> tokens, engine.Tokenize(text, turns.empty(), false));
    turns.push_back(std::move(tokens));
  }
  if (turns.size() > 1) return turns;
  std::vector<Token> all = std::move(turns.front());
  if (command.max_tokens > 0) all.resize(std::min(all.size(), static_cast<size_t>(command.max_tokens)));
  turns.clear();
  const auto n = static_cast<size_t>(command.turns);
  for (size_t i = 0; i < n; ++i) {
    turns.emplace_back(all.begin() + static_cast<ptrdiff_t>(all.size() * i / n),
                       all.begin() + static_cast<ptrdiff_t>(all.size() * (i + 1) / n));
  }
  return turns;
}

Status CheckTurns(const Turns& turns, int64_t context_tokens) {
  int64_t total = 0;
  for (size_t i = 0; i < turns.size(); ++i) {
    const auto n = static_cast<int64_t>(turns[i].size());
    total += n;
    const std::string name = "turn " + std::to_string(i + 1) + " has " + FormatCount(n) + " tokens; ";
    if (n < kMinInspectedRows) {
      return Status(StatusCode::kInvalidArgument,
                    name + "a turn needs at least " + std::to_string(kMinInspectedRows) + " to show anything");
    }
    if (n > kMaxInspectedRows) {
      return Status(StatusCode::kInvalidArgument,
                    name + "more than " + FormatCount(kMaxInspectedRows) + " must be cut into turns (--turns)");
    }
  }
  if (total <= context_tokens) return Status::Ok();
  return Status(StatusCode::kContextLength, "the text has " + FormatCount(total) + " tokens, but the context holds " +
                                                FormatCount(context_tokens) + "; --tokens takes fewer");
}

/// Reads turn by turn, each on top of those before.
Status Inspect(const Turns& turns, Session& session, InspectReport* report) {
  StatusLine status_line;
  std::vector<Token> prompt;
  for (size_t i = 0; i < turns.size(); ++i) {
    prompt.insert(prompt.end(), turns[i].begin(), turns[i].end());
    RunControl control;
    control.cancel = &InterruptFlag();
    control.inspector = &report->inspector;
    control.on_progress = [&](double fraction) {
      status_line.Show("turn " + std::to_string(i + 1) + " of " + std::to_string(turns.size()) + " " +
                       ProgressBar(fraction, 30) + " " + FormatFixed(fraction * 100, 0) + "%");
    };
    LS_ASSIGN_OR_RETURN(const SyncStats stats, session.Sync(prompt, control));
    report->prefill_density.push_back(stats.prefill_density);
  }
  return Status::Ok();
}

Status WritePicture(const InspectCommand& command, const InspectReport& report) {
  const std::vector<TurnAttention>& turns = report.inspector.turns;
  const TurnAttention& turn =
      command.picture_turn > 0 ? turns[static_cast<size_t>(command.picture_turn) - 1] : turns.back();
  const HeadAttention& head = turn.layers.front().heads[static_cast<size_t>(turn.map->head)];
  LS_ASSIGN_OR_RETURN(const std::string png, EncodePng(DrawAttention(*turn.map, head)));
  return WriteFileAtomically(command.png_path, png);
}

Status RunInspect(const InspectCommand& command) {
  LS_ASSIGN_OR_RETURN(const Policy policy, ToPolicy(command.model));
  LS_RETURN_IF_ERROR(CheckCommand(command));
  LS_ASSIGN_OR_RETURN(const std::shared_ptr<Engine> engine, OpenEngine(command.model));
  const ModelInfo& model = engine->model();
  LS_RETURN_IF_ERROR(command.options.Validate(model.layer_windows, model.n_heads));
  LS_ASSIGN_OR_RETURN(const Turns turns, ReadTurns(command, *engine));
  LS_RETURN_IF_ERROR(CheckTurns(turns, model.context_tokens));
  Session session = engine->NewSession(policy);
  InspectReport report;
  report.inspector.options = command.options;
  report.layer_windows = model.layer_windows;
  report.text_of = [&](int64_t position) {
    const Token token = session.tokens()[static_cast<size_t>(position)];
    return engine->Detokenize({&token, 1}, true);
  };
  LS_RETURN_IF_ERROR(Inspect(turns, session, &report));
  if (report.inspector.turns.empty()) {
    return Status(StatusCode::kUnsupported, "every layer of this model has a sliding window and is always dense");
  }
  if (!command.png_path.empty()) LS_RETURN_IF_ERROR(WritePicture(command, report));
  if (!command.has_json || command.json_path != "-") std::cout << FormatInspectReport(report);
  if (!command.has_json) return Status::Ok();
  Json document = {{"model", model.description},
                   {"policy", policy.ToString()},
                   {"threads", model.threads},
                   {"alpha", command.options.alpha},
                   {"sample_rows", command.options.sample_rows},
                   {"heldout_rows", command.options.heldout_rows},
                   {"seed", command.options.seed}};
  document.update(InspectReportToJson(report));
  return WriteJson(command.json_path, document);
}

void AddLookOptions(CLI::App& sub, InspectCommand* command) {
  InspectOptions& options = command->options;
  sub.add_option("--alpha", options.alpha, "share of the weight that the chosen lines must hold, above 0 to 1")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  sub.add_option("--rows", options.sample_rows, "rows of a turn whose attention decides, 1 to 4096")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  sub.add_option("--heldout-rows", options.heldout_rows, "other rows that judge the choice, 0 to 4096")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  sub.add_option("--seed", options.seed, "which rows are sampled")->capture_default_str();
  CLI::Option* layer = sub.add_option("--layer", options.layer, "only this layer, from 0 on: a table of its heads");
  CLI::Option* head = sub.add_option("--head", options.map_head, "the lines of this head of --layer, from 0 on");
  head->needs(layer);
  CLI::Option* png = sub.add_option("--png", command->png_path, "picture of --head's attention and its lines");
  png->needs(head);
  sub.add_option("--turn", command->picture_turn, "the turn of the picture, from 1 on; left out: the last")
      ->check(CLI::Range(1, 1 << 20))
      ->needs(png);
}

}  // namespace

void RegisterInspectCommand(CLI::App& app, CommandContext& context) {
  auto command = std::make_shared<InspectCommand>();
  command->model.policy = "dense";
  CLI::App* sub = app.add_subcommand("inspect", "what a model attends to on a text, turn by turn");
  AddModelOptions(*sub, &command->model);
  AddPolicyOption(*sub, &command->model);
  sub->get_option("--policy")
      ->description(
          "what is computed of the attention; dense, so that the weights shown are the model's own, or another policy: "
          "then those that its hidden states give");
  sub->get_option("--quality")->description("a preset instead of --policy: fast, balanced or faithful");
  sub->add_option("--text", command->text_paths, "the text, UTF-8; given several times, each is a turn")->required();
  sub->add_option("--tokens", command->max_tokens, "only the text's first tokens; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  sub->add_option("--turns", command->turns, "cuts the text into so many equal turns")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  AddLookOptions(*sub, command.get());
  CLI::Option* json =
      sub->add_option("--json", command->json_path, "report file; - or nothing: stdout, with nothing else there")
          ->expected(0, 1);
  sub->callback([command, json, &context] {
    command->has_json = json->count() > 0;
    if (command->json_path.empty()) command->json_path = "-";
    context.action = [command] { return RunInspect(*command); };
  });
}

}  // namespace loopserve
