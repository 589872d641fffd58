#include "src/cli/app.h"

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>

#include "src/base/format.h"
#include "src/base/log.h"
#include "src/cli/command.h"
#include "src/cli/interrupt.h"
#include "src/cli/logging.h"

namespace loopserve {
namespace {

constexpr int kExitError = 1;
constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;

constexpr void (*kCommands[])(CLI::App&, CommandContext&) = {
    RegisterPullCommand,  RegisterChatCommand,    RegisterRunCommand,  RegisterScoreCommand,
    RegisterBenchCommand, RegisterInspectCommand, RegisterEvalCommand, RegisterServeCommand,
};

constexpr char kExamples[] = R"(examples:
  loopserve pull smollm2                          get the default model
  loopserve chat -m smollm2                       talk to it
  loopserve serve -m smollm2                      serve it over HTTP, as OpenAI's API does
  loopserve run -m smollm2 --dialogue d.jsonl --json out.json
                                                  run written dialogues and measure them
  loopserve inspect -m smollm2 --text book.txt --turns 4
                                                  what the model attends to, turn by turn
  loopserve COMMAND --help                        the options of one command

exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted)";

void PrintError(std::string message) {
  // Whatever a library or a file put into it.
  message = OnOneLine(message);
  while (!message.empty() && message.back() == ' ') message.pop_back();
  std::cerr << "loopserve: error: " << message << std::endl;
}

int ExitCodeOf(const Status& status) {
  if (status.ok()) return 0;
  if (status.code() == StatusCode::kCancelled) return kExitInterrupted;
  return status.code() == StatusCode::kInvalidArgument ? kExitUsage : kExitError;
}

int RunAction(const CommandContext& context) {
  Status status;
  try {
    status = context.action();
  } catch (const std::bad_alloc&) {
    status = Status(StatusCode::kResourceExhausted, "out of memory");
  } catch (const std::exception& error) {
    status = Status(StatusCode::kInternal, error.what());
  }
  std::cout.flush();
  if (status.ok() && !std::cout) status = Status(StatusCode::kIoError, "cannot write to stdout");
  if (!status.ok()) PrintError(status.message());
  return ExitCodeOf(status);
}

}  // namespace

int RunApp(int argc, const char* const* argv) {
  InstallSignalHandlers();
  CLI::App app("loopserve: long multi-turn dialogues with local language models", "loopserve");
  app.set_version_flag("--version", std::string("loopserve ") + LOOPSERVE_VERSION);
  app.footer(kExamples);
  app.require_subcommand(1);
  app.fallthrough();
  std::string log_level = "warn";
  app.add_option("--log-level", log_level, "trace, debug, info, warn, error or off (to stderr)")
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "error", "off"}))
      ->capture_default_str();
  CommandContext context;
  for (const auto& register_command : kCommands) register_command(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& call) {
    return app.exit(call);
  } catch (const CLI::CallForVersion& call) {
    return app.exit(call);
  } catch (const CLI::ParseError& error) {
    PrintError(std::string(error.what()) + " (try: loopserve --help)");
    return kExitUsage;
  }
  InstallLogSink(log_level);
  const int exit_code = RunAction(context);
  SetLogSink({});
  return exit_code;
}

}  // namespace loopserve
