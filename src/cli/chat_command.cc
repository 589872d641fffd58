// `loopserve chat`: opens the model and joins ChatLoop to the terminal and its signals.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>

#include "src/base/format.h"
#include "src/base/utf8.h"
#include "src/cli/chat.h"
#include "src/cli/command.h"
#include "src/cli/interrupt.h"
#include "src/cli/model_options.h"
#include "src/cli/sampling_options.h"
#include "src/cli/status_line.h"

namespace loopserve {
namespace {

struct ChatCommand {
  ModelOptions model;
  ChatOptions chat;
};

Status RunChat(const ChatCommand& command) {
  LS_RETURN_IF_ERROR(command.chat.sampling.Validate());
  if (!IsValidUtf8(command.chat.system)) return Status(StatusCode::kInvalidArgument, "--system is not valid UTF-8");
  LS_ASSIGN_OR_RETURN(const Policy policy, ToPolicy(command.model));
  LS_ASSIGN_OR_RETURN(const std::shared_ptr<Engine> engine, OpenEngine(command.model));
  if (!engine->model().has_chat_template) {
    std::cerr << "loopserve: note: this model has no chat template; it continues the plain text\n";
  }
  EngineConversation conversation(engine, policy);
  FdLineSource in(STDIN_FILENO, InterruptFlag());
  StatusLine status_line;
  ChatOptions options = command.chat;
  options.interactive = isatty(STDIN_FILENO) == 1;
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
  AddSamplingOptions(*sub, &command->chat.sampling);
  sub->footer("Where stdin is no terminal, each of its lines is one turn and only the answers are written to stdout.");
  sub->callback([command, &context] { context.action = [command] { return RunChat(*command); }; });
}

}  // namespace loopserve
