// `loopserve chat`: opens the model and joins ChatLoop to the terminal and its signals.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <span>

#include "src/base/format.h"
#include "src/base/utf8.h"
#include "src/cli/chat.h"
#include "src/cli/command.h"
#include "src/cli/interrupt.h"
#include "src/cli/model_options.h"
#include "src/cli/sampling_options.h"
#include "src/cli/saved_dialogue.h"
#include "src/cli/status_line.h"

namespace loopserve {
namespace {

struct ChatCommand {
  ModelOptions model;
  ChatOptions chat;
  std::string session;  ///< empty: nothing is kept
  std::string sessions_dir;
  bool policy_given = false;
};

/// Brings back what --session names, and lets every turn be saved there.
Status JoinSession(const ChatCommand& command, const SavedDialogue& saved, const Policy& policy, const Engine& engine,
                   EngineConversation* conversation, ChatOptions* options) {
  LS_ASSIGN_OR_RETURN(auto resumed, Resume(saved, engine, command.policy_given ? std::optional(policy) : std::nullopt));
  if (resumed) {
    if (resumed->session) conversation->Resume(std::move(*resumed->session));
    if (!resumed->note.empty()) std::cerr << "loopserve: note: " << OnOneLine(resumed->note) << "\n";
    options->past = std::move(resumed->messages);
  }
  options->save = [&saved, conversation](std::span<const ChatMessage> messages) {
    return saved.Save(conversation->session(), messages);
  };
  return Status::Ok();
}

Status RunChat(const ChatCommand& command) {
  LS_RETURN_IF_ERROR(command.chat.sampling.Validate());
  if (!IsValidUtf8(command.chat.system)) return Status(StatusCode::kInvalidArgument, "--system is not valid UTF-8");
  LS_ASSIGN_OR_RETURN(const Policy policy, ToPolicy(command.model));
  LS_ASSIGN_OR_RETURN(const std::shared_ptr<Engine> engine, OpenEngine(command.model));
  if (!engine->model().has_chat_template) {
    std::cerr << "loopserve: note: this model has no chat template; it continues the plain text\n";
  }
  EngineConversation conversation(engine, policy);
  std::optional<SavedDialogue> saved;
  FdLineSource in(STDIN_FILENO, InterruptFlag());
  StatusLine status_line;
  ChatOptions options = command.chat;
  options.interactive = isatty(STDIN_FILENO) == 1;
  if (!command.session.empty()) {
    LS_ASSIGN_OR_RETURN(saved, SavedDialogue::Open(command.session, command.sessions_dir));
    LS_RETURN_IF_ERROR(JoinSession(command, *saved, policy, *engine, &conversation, &options));
  }
  options.interrupt = &InterruptFlag();
  // Without a terminal an interrupt ends the program, whenever it comes.
  if (options.interactive) options.clear_interrupt = ClearInterrupt;
  options.show_progress = [&](double fraction) {
    if (fraction >= 1) return status_line.Clear();
    status_line.Show("reading " + ProgressBar(fraction, 30) + " " + FormatFixed(fraction * 100, 0) + "%");
  };
  return ChatLoop(conversation, in, std::cout, std::cerr, options).Run();
}

}  // namespace

void RegisterChatCommand(CLI::App& app, CommandContext& context) {
  auto command = std::make_shared<ChatCommand>();
  CLI::App* sub = app.add_subcommand("chat", "talk to a model");
  AddModelOptions(*sub, &command->model);
  AddPolicyOption(*sub, &command->model);
  sub->add_option("--system", command->chat.system, "system message");
  sub->add_option(
      "--session", command->session,
      "goes on with this stored dialogue, or begins it, and saves every turn: a name, or a file (NAME.lssnap)");
  AddSessionsDirOption(*sub, &command->sessions_dir);
  AddSamplingOptions(*sub, &command->chat.sampling);
  sub->footer("Where stdin is no terminal, each of its lines is one turn and only the answers are written to stdout.");
  sub->callback([command, sub, &context] {
    command->policy_given = sub->count("--policy") + sub->count("--quality") > 0;
    context.action = [command] { return RunChat(*command); };
  });
}

}  // namespace loopserve
