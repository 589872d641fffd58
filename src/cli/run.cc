#include "src/cli/run.h"

#include <CLI/CLI.hpp>
#include <iostream>

#include "src/base/format.h"
#include "src/base/utf8.h"
#include "src/cli/command.h"
#include "src/cli/interrupt.h"
#include "src/cli/model_options.h"
#include "src/cli/sampling_options.h"
#include "src/cli/saved_dialogue.h"
#include "src/cli/status_line.h"
#include "src/cli/turn_report.h"

namespace loopserve {
namespace {

constexpr int kDefaultMaxTokens = 256;
constexpr size_t kShownUserBytes = 600;

struct RunCommand {
  ModelOptions model;
  SamplingParams sampling;
  std::string dialogue_path;
  std::string json_path;
  bool quiet = false;
  std::string resume, save;  ///< stored dialogues; empty: none
  std::string sessions_dir;
  bool policy_given = false;
};

/// What --resume names, once for all dialogues: each goes on from a fork of it.
Result<std::optional<ResumedDialogue>> ResumePast(const RunCommand& command, const Policy& policy,
                                                  const Engine& engine) {
  if (command.resume.empty()) return std::optional<ResumedDialogue>();
  LS_ASSIGN_OR_RETURN(const SavedDialogue saved, SavedDialogue::Open(command.resume, command.sessions_dir));
  LS_ASSIGN_OR_RETURN(auto resumed, Resume(saved, engine, command.policy_given ? std::optional(policy) : std::nullopt));
  if (!resumed) return Status(StatusCode::kNotFound, "there is no stored dialogue '" + command.resume + "'");
  if (!resumed->note.empty()) std::cerr << "loopserve: note: " << OnOneLine(resumed->note) << "\n";
  return resumed;
}

// The end of a long message is shown: there the question stands.
std::string ShortenForPeople(const std::string& text) {
  if (text.size() <= kShownUserBytes) return text;
  size_t begin = text.size() - kShownUserBytes;
  while (begin < text.size() && IsUtf8Continuation(text[begin])) ++begin;
  return "[... " + FormatCount(static_cast<int64_t>(begin)) + " bytes not shown ...] " + text.substr(begin);
}

// Plays one dialogue. Its turns and its error, if any, go into `report`.
Status PlayDialogue(const eval::WrittenDialogue& dialogue, Conversation& conversation,
                    const DialogueRunOptions& options, Json* report) {
  std::vector<ChatMessage> messages = options.past;
  if (messages.empty() && !dialogue.system.empty()) messages.push_back({"system", dialogue.system});
  Json turns = Json::array();
  Status status;
  for (size_t i = 0; i < dialogue.turns.size() && status.ok(); ++i) {
    std::ostream* out = options.out;
    if (out != nullptr) {
      *out << "--- " << dialogue.id << ", turn " << i + 1 << " of " << dialogue.turns.size()
           << "\nuser: " << ShortenForPeople(dialogue.turns[i].user) << "\nanswer: " << std::flush;
    }
    messages.push_back({"user", dialogue.turns[i].user});
    const TextCallback on_text = [&](std::string_view text) {
      if (out != nullptr) *out << text << std::flush;
      return out == nullptr || out->good();
    };
    const Result<TurnResult> turn = conversation.Answer(messages, options.sampling, on_text, options.control);
    status = turn.status();
    if (turn.ok()) {
      turns.push_back(TurnToJson(*turn));
      messages.push_back({"assistant", turn->generation.text});
      if (turn->generation.stop_reason == StopReason::kCancelled)
        status = Status(StatusCode::kCancelled, "interrupted");
      if (options.save) {
        const Status saved = options.save(conversation, messages);
        if (status.ok()) status = saved;
      }
    }
    if (out == nullptr) continue;
    *out << "\n" << (turn.ok() ? "[" + FormatTurn(*turn) + "]" : "[error: " + status.message() + "]") << "\n\n";
    if (!out->flush()) status = Status(StatusCode::kIoError, "cannot write to stdout");
  }
  *report = {{"id", dialogue.id}, {"turns", std::move(turns)}};
  if (!status.ok()) (*report)["error"] = status.message();
  return status;
}

Status Run(const RunCommand& command) {
  LS_RETURN_IF_ERROR(command.sampling.Validate());
  LS_ASSIGN_OR_RETURN(const Policy policy, ToPolicy(command.model));
  LS_ASSIGN_OR_RETURN(const std::vector<eval::WrittenDialogue> dialogues,
                      eval::ReadDialogueFile(command.dialogue_path));
  // Everything that can be known to fail is tried before the model computes for minutes.
  if (!command.json_path.empty()) LS_RETURN_IF_ERROR(CheckJsonPath(command.json_path));
  if (!command.save.empty() && dialogues.size() != 1) {
    return Status(StatusCode::kInvalidArgument,
                  "--save stores one dialogue, and the file has " + std::to_string(dialogues.size()));
  }
  std::optional<SavedDialogue> target;
  if (!command.save.empty()) {
    LS_ASSIGN_OR_RETURN(target, SavedDialogue::Open(command.save, command.sessions_dir));
  }
  LS_ASSIGN_OR_RETURN(const std::shared_ptr<Engine> engine, OpenEngine(command.model));
  if (!engine->model().has_chat_template) {
    std::cerr << "loopserve: note: this model has no chat template; it continues the plain text\n";
  }
  StatusLine status_line;
  DialogueRunOptions options;
  options.sampling = command.sampling;
  if (!command.quiet && command.json_path != "-") options.out = &std::cout;
  options.control.cancel = &InterruptFlag();
  options.control.on_progress = [&](double fraction) {
    if (fraction >= 1) return status_line.Clear();
    status_line.Show("reading " + ProgressBar(fraction, 30) + " " + FormatFixed(fraction * 100, 0) + "%");
  };
  LS_ASSIGN_OR_RETURN(const std::optional<ResumedDialogue> resumed, ResumePast(command, policy, *engine));
  if (resumed) options.past = resumed->messages;
  if (target) {
    options.save = [&](const Conversation& conversation, std::span<const ChatMessage> messages) {
      return target->Save(static_cast<const EngineConversation&>(conversation).session(), messages);
    };
  }
  const auto make_conversation = [&] {
    auto conversation = std::make_unique<EngineConversation>(engine, policy);
    if (resumed && resumed->session) conversation->Resume(resumed->session->Fork());
    return conversation;
  };
  DialogueRunResult result = RunDialogues(dialogues, make_conversation, options);
  status_line.Clear();
  if (!command.json_path.empty()) {
    const ModelInfo& model = engine->model();
    const Json document = {{"model", model.description},
                           {"policy", (resumed && resumed->session ? resumed->session->policy() : policy).ToString()},
                           {"threads", model.threads},
                           {"dialogues", std::move(result.dialogues)}};
    LS_RETURN_IF_ERROR(WriteJson(command.json_path, document));
  }
  LS_RETURN_IF_ERROR(result.status);
  if (result.failed == 0) return Status::Ok();
  return Status(StatusCode::kIoError,
                std::to_string(result.failed) + " of " + std::to_string(dialogues.size()) + " dialogues failed");
}

}  // namespace

DialogueRunResult RunDialogues(std::span<const eval::WrittenDialogue> dialogues,
                               const std::function<std::unique_ptr<Conversation>()>& make_conversation,
                               const DialogueRunOptions& options) {
  DialogueRunResult result;
  for (const eval::WrittenDialogue& dialogue : dialogues) {
    Json report;
    const std::unique_ptr<Conversation> conversation = make_conversation();
    const Status status = PlayDialogue(dialogue, *conversation, options, &report);
    result.dialogues.push_back(std::move(report));
    if (status.ok()) continue;
    ++result.failed;
    const bool over = status.code() == StatusCode::kCancelled || (options.out != nullptr && !options.out->good());
    if (over) {
      result.status = status;
      break;
    }
  }
  return result;
}

void RegisterRunCommand(CLI::App& app, CommandContext& context) {
  auto command = std::make_shared<RunCommand>();
  command->sampling.max_tokens = kDefaultMaxTokens;
  CLI::App* sub = app.add_subcommand("run", "run written dialogues and report each turn");
  AddModelOptions(*sub, &command->model);
  AddPolicyOption(*sub, &command->model);
  sub->add_option("--dialogue", command->dialogue_path,
                  "JSON lines: {\"id\", \"system\"?, \"turns\": [{\"user\", \"reference\"?}]}; -: stdin")
      ->required();
  sub->add_option("--json", command->json_path, "report file; -: stdout, with nothing else there");
  sub->add_flag("--quiet", command->quiet, "do not show the dialogues");
  sub->add_option("--resume", command->resume,
                  "every dialogue goes on from this stored one: a name, or a file (NAME.lssnap)");
  sub->add_option("--save", command->save, "saves the one dialogue here after each turn");
  AddSessionsDirOption(*sub, &command->sessions_dir);
  AddSamplingOptions(*sub, &command->sampling);
  sub->callback([command, sub, &context] {
    command->policy_given = sub->count("--policy") + sub->count("--quality") > 0;
    context.action = [command] { return Run(*command); };
  });
}

}  // namespace loopserve
