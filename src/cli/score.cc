#include "src/cli/score.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <utility>

#include "bench/text_source.h"
#include "eval/dialogue_file.h"
#include "src/base/format.h"
#include "src/base/paths.h"
#include "src/cli/command.h"
#include "src/cli/interrupt.h"
#include "src/cli/model_options.h"
#include "src/cli/status_line.h"

namespace loopserve {
namespace {

constexpr int64_t kDefaultWindowTokens = 4096;

struct ScoreCommand {
  ModelOptions model;
  std::string text_path;
  std::string dialogues_path;
  int64_t max_tokens = 0;
  int64_t answer_tokens = 0;
  std::string against;
  std::string json_path;
};

/// The text's windows, of `context` tokens at most.
Result<std::vector<bench::ScoredWindow>> ReadWindows(const ScoreCommand& command, const Engine& engine,
                                                     int64_t context) {
  LS_ASSIGN_OR_RETURN(const std::string text, bench::ReadText(command.text_path));
  LS_ASSIGN_OR_RETURN(std::vector<Token> tokens, engine.Tokenize(text, false, false));
  if (command.max_tokens > 0) tokens.resize(std::min(tokens.size(), static_cast<size_t>(command.max_tokens)));
  LS_ASSIGN_OR_RETURN(const std::vector<Token> special, engine.Tokenize("", true, false));
  const int64_t shortest = static_cast<int64_t>(special.size()) + 2 + command.answer_tokens;
  if (context < shortest) {
    return Status(StatusCode::kInvalidArgument, "a window of " + std::to_string(context) +
                                                    " tokens is too short: give --context at least " +
                                                    std::to_string(shortest));
  }
  auto windows = bench::CutWindows(tokens, special, context, command.answer_tokens);
  if (windows.empty()) {
    return Status(StatusCode::kInvalidArgument, command.text_path + ": the text has fewer than " +
                                                    std::to_string(2 + command.answer_tokens) + " tokens");
  }
  return windows;
}

/// One window for each dialogue: its turns with their first references as answers.
Result<std::vector<bench::ScoredWindow>> ReadDialogueWindows(const ScoreCommand& command, const Engine& engine,
                                                             int64_t context) {
  LS_ASSIGN_OR_RETURN(const std::vector<eval::WrittenDialogue> dialogues,
                      eval::ReadDialogueFile(command.dialogues_path));
  std::vector<bench::ScoredWindow> windows;
  for (const eval::WrittenDialogue& dialogue : dialogues) {
    bench::ScoredWindow window;
    std::vector<ChatMessage> messages;
    std::vector<Token> held;
    if (!dialogue.system.empty()) messages.push_back({"system", dialogue.system});
    for (const eval::DialogueTurn& turn : dialogue.turns) {
      if (turn.reference.empty() || turn.reference.front().empty()) {
        return Status(StatusCode::kInvalidArgument,
                      command.dialogues_path + ", dialogue " + dialogue.id + ": every turn needs a reference to score");
      }
      messages.push_back({"user", turn.user});
      bench::ScoredTurn scored;
      LS_ASSIGN_OR_RETURN(scored.prompt, engine.RenderChat(messages, true, held));
      LS_ASSIGN_OR_RETURN(scored.answer, engine.Tokenize(turn.reference.front(), false, false));
      messages.push_back({"assistant", turn.reference.front()});
      held = scored.prompt;
      held.insert(held.end(), scored.answer.begin(), scored.answer.end());
      window.turns.push_back(std::move(scored));
    }
    if (window.n_tokens() > context) {
      return Status(StatusCode::kContextLength, command.dialogues_path + ", dialogue " + dialogue.id + ": " +
                                                    std::to_string(window.n_tokens()) +
                                                    " tokens, but the context holds " + std::to_string(context));
    }
    windows.push_back(std::move(window));
  }
  return windows;
}

/// The model that `against` names; null if it is empty. Its weights are apart from ours: both walk side by side.
Result<std::unique_ptr<bench::Scorer>> OpenReference(const ScoreCommand& command, const bench::AgainstSpec& against,
                                                     const ModelInfo& model, int64_t context) {
  if (against.kind == bench::AgainstSpec::Kind::kPolicy) {
    LS_ASSIGN_OR_RETURN(std::shared_ptr<Engine> engine, OpenEngine(command.model));
    return bench::MakeEngineScorer(std::move(engine), against.policy, &InterruptFlag());
  }
  bench::LlamaCppScorerOptions options;
  LS_ASSIGN_OR_RETURN(options.model_path, ResolveModelPath(command.model.model));
  options.threads = model.threads;
  options.context_tokens = context;
  options.n_vocab = model.n_vocab;
  options.exact = against.kind == bench::AgainstSpec::Kind::kLlamaCppExact;
  options.cancel = &InterruptFlag();
  LS_ASSIGN_OR_RETURN(const std::filesystem::path cache, CacheDir());
  options.scratch_path = (cache / "tmp").string();
  return bench::MakeLlamaCppScorer(options);
}

Status RunScore(const ScoreCommand& command) {
  LS_ASSIGN_OR_RETURN(const Policy policy, ToPolicy(command.model));
  bench::AgainstSpec against;
  if (!command.against.empty()) {
    LS_ASSIGN_OR_RETURN(against, bench::ParseAgainst(command.against));
  }
  if (!command.json_path.empty()) LS_RETURN_IF_ERROR(CheckJsonPath(command.json_path));
  ModelOptions model_options = command.model;
  const int64_t asked = std::exchange(model_options.context_tokens, 0);
  LS_ASSIGN_OR_RETURN(const std::shared_ptr<Engine> engine, OpenEngine(model_options));
  const ModelInfo& model = engine->model();
  if (asked > model.context_tokens) {
    return Status(StatusCode::kContextLength, "--context " + std::to_string(asked) +
                                                  " is beyond the model's context of " +
                                                  std::to_string(model.context_tokens) + " tokens");
  }
  const bool is_text = command.dialogues_path.empty();
  const int64_t context =
      asked > 0 ? asked : std::min(model.context_tokens, is_text ? kDefaultWindowTokens : model.context_tokens);
  LS_ASSIGN_OR_RETURN(const auto windows, is_text ? ReadWindows(command, *engine, context)
                                                  : ReadDialogueWindows(command, *engine, context));
  std::unique_ptr<bench::Scorer> reference;
  if (!command.against.empty()) {
    LS_ASSIGN_OR_RETURN(reference, OpenReference(command, against, model, context));
  }
  const auto scorer = bench::MakeEngineScorer(engine, policy, &InterruptFlag());
  StatusLine status_line;
  const Result<bench::TextScore> score = bench::ScoreText(windows, *scorer, reference.get(), [&](double fraction) {
    status_line.Show("scoring " + ProgressBar(fraction, 30) + " " + FormatFixed(fraction * 100, 0) + "%");
  });
  status_line.Clear();
  LS_RETURN_IF_ERROR(score.status());
  if (command.json_path != "-") std::cout << FormatTextScore(*score, against.name);
  if (command.json_path.empty()) return Status::Ok();
  Json document = TextScoreToJson(*score);
  document["model"] = model.description;
  document["policy"] = policy.ToString();
  document["against"] = reference ? Json(against.name) : Json(nullptr);
  document["context_tokens"] = context;
  document["threads"] = model.threads;
  return WriteJson(command.json_path, document);
}

}  // namespace

Json TextScoreToJson(const bench::TextScore& score) {
  Json parts = Json::array();
  for (const bench::PartScore& part : score.parts) {
    parts.push_back({{score.by_turn ? "turn" : "first_position", part.first_position},
                     {"scored_positions", part.scored_positions},
                     {"nll", part.nll},
                     {"kl", JsonOrNull(part.kl)},
                     {"top1_agreement", JsonOrNull(part.top1_agreement)}});
  }
  return {{"tokens", score.tokens},
          {"nll", score.nll},
          {"nll_against", JsonOrNull(score.nll_against)},
          {"kl", JsonOrNull(score.kl)},
          {"top1_agreement", JsonOrNull(score.top1_agreement)},
          {"prefill_density", JsonOrNull(score.figures.prefill_density)},
          {"coverage_heldout", JsonOrNull(score.figures.coverage_heldout)},
          {"output_error", JsonOrNull(score.figures.output_error)},
          {"output_error_p90", JsonOrNull(score.figures.output_error_p90)},
          {"floor_density", JsonOrNull(score.figures.floor_density)},
          {"floor_error", JsonOrNull(score.figures.floor_error)},
          {"decode_coverage", JsonOrNull(score.figures.decode_coverage)},
          {"decode_coverage_p10", JsonOrNull(score.figures.decode_coverage_p10)},
          {"decode_kv_fraction", JsonOrNull(score.figures.decode_kv_fraction)},
          {"parts", std::move(parts)},
          {"scored_positions", score.scored_positions},
          {"windows", score.windows},
          {"kl_p99", JsonOrNull(score.kl_p99)},
          {"kl_max", JsonOrNull(score.kl_max)}};
}

namespace {

/// One line on what the policy computed and lost, one on the floor; nothing where nothing was measured.
std::string FormatFigures(const bench::WindowFigures& figures) {
  if (!figures.prefill_density) return "";
  std::string text = "prefill density " + FormatFixed(*figures.prefill_density, 3);
  if (figures.decode_coverage) {
    text += ", decode coverage " + FormatFixed(*figures.decode_coverage, 3) + " (worst tenth of heads " +
            FormatFixed(*figures.decode_coverage_p10, 3) + ") of " + FormatFixed(*figures.decode_kv_fraction, 3) +
            " of the keys";
  }
  if (!figures.coverage_heldout) return text + "\n";
  text += ", held-out coverage " + FormatFixed(*figures.coverage_heldout, 3) + ", output error " +
          FormatFixed(*figures.output_error, 4) + " (p90 " + FormatFixed(*figures.output_error_p90, 4) + ")\n";
  return text + "floor: density " + FormatFixed(*figures.floor_density, 3) + ", output error " +
         FormatFixed(*figures.floor_error, 4) + "\n";
}

}  // namespace

std::string FormatTextScore(const bench::TextScore& score, const std::string& against) {
  std::string text = FormatCount(score.scored_positions) + " positions in " + FormatCount(score.windows) +
                     (score.windows == 1 ? " window" : " windows") + ": NLL " + FormatFixed(score.nll, 4) +
                     " nats a token\n";
  if (score.kl) {
    text += "against " + against + ": NLL " + FormatFixed(*score.nll_against, 4) + ", mean KL " +
            FormatFixed(*score.kl, 6) + " (p99 " + FormatFixed(*score.kl_p99, 6) + ", max " +
            FormatFixed(*score.kl_max, 6) + "), top-1 agreement " + FormatFixed(*score.top1_agreement * 100, 2) + "%\n";
  }
  for (const bench::PartScore& part : score.parts) {
    text += (score.by_turn ? "  turn " : "  from position ") + FormatCount(part.first_position) + ": NLL " +
            FormatFixed(part.nll, 4);
    if (part.kl) {
      text += ", KL " + FormatFixed(*part.kl, 6) + ", top-1 " + FormatFixed(*part.top1_agreement * 100, 1) + "%";
    }
    text += "\n";
  }
  return text + FormatFigures(score.figures);
}

void RegisterScoreCommand(CLI::App& app, CommandContext& context) {
  auto command = std::make_shared<ScoreCommand>();
  CLI::App* sub = app.add_subcommand("score", "how well a model predicts a text, and how far it is from a reference");
  AddModelOptions(*sub, &command->model);
  sub->get_option("--context")->description("tokens of a window; 0: 4096, or the model's own limit if that is less");
  AddPolicyOption(*sub, &command->model);
  CLI::Option_group* input = sub->add_option_group("what is scored");
  input->add_option("--text", command->text_path, "the text, UTF-8");
  CLI::Option* dialogues =
      input->add_option("--dialogues", command->dialogues_path,
                        "instead of a text, dialogues as `loopserve run` takes them: their references are the answers");
  input->require_option(1);
  sub->add_option(
         "--answer-tokens", command->answer_tokens,
         "compute and score only the last tokens of each window, one by one as an answer is; 0: all as prefill")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 20))
      ->excludes(dialogues);
  sub->add_option("--tokens", command->max_tokens, "score only the text's first tokens; 0: all")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
  sub->add_option("--against", command->against,
                  "a reference on the same tokens: a policy, or llama.cpp[:arithmetic=exact|quantized]");
  sub->add_option("--json", command->json_path, "report file; -: stdout, with nothing else there");
  sub->callback([command, &context] { context.action = [command] { return RunScore(*command); }; });
}

}  // namespace loopserve
