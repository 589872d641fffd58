// How a subcommand joins the program: one file pair with a function `void RegisterXCommand(CLI::App&, CommandContext&)`
// that adds its options and, as their callback, sets CommandContext::action. It is named once more in app.cc's table.
// Errors go up as a Status; only app.cc turns one into a line on stderr and an exit code.
#pragma once

#include <functional>

#include "loopserve/status.h"

namespace CLI {
class App;
}

namespace loopserve {

struct CommandContext {
  /// What the chosen subcommand does, run after the whole command line was parsed. kInvalidArgument ends the program
  /// with exit code 2, kCancelled with 130, every other error with 1.
  std::function<Status()> action;
};

void RegisterPullCommand(CLI::App& app, CommandContext& context);
void RegisterChatCommand(CLI::App& app, CommandContext& context);
void RegisterRunCommand(CLI::App& app, CommandContext& context);
void RegisterServeCommand(CLI::App& app, CommandContext& context);
void RegisterScoreCommand(CLI::App& app, CommandContext& context);
void RegisterBenchCommand(CLI::App& app, CommandContext& context);
void RegisterInspectCommand(CLI::App& app, CommandContext& context);
void RegisterEvalCommand(CLI::App& app, CommandContext& context);
/// The subcommands of `eval`, for RegisterEvalCommand.
void RegisterEvalPullCommand(CLI::App& eval_command, CommandContext& context);
void RegisterEvalBuildCommand(CLI::App& eval_command, CommandContext& context);
void RegisterEvalRunCommand(CLI::App& eval_command, CommandContext& context);
void RegisterEvalExportCommands(CLI::App& eval_command, CommandContext& context);
void RegisterEvalReportCommand(CLI::App& eval_command, CommandContext& context);

}  // namespace loopserve
