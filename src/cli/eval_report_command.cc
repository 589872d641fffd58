// `loopserve eval report`: the results of a run as a document for people.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>

#include "eval/report.h"
#include "eval/result_store.h"
#include "src/base/atomic_file.h"
#include "src/base/paths.h"
#include "src/cli/command.h"

namespace loopserve {
namespace {

struct EvalReportCommand {
  std::string dir;
  std::string out_dir;
};

Status RunEvalReport(const EvalReportCommand& command) {
  LS_ASSIGN_OR_RETURN(eval::ResultStore store, eval::ResultStore::OpenResults(command.dir));
  LS_ASSIGN_OR_RETURN(const eval::RunInputs inputs, store.Inputs());
  LS_ASSIGN_OR_RETURN(const eval::RunInputs policies, store.Definitions("policy"));
  LS_ASSIGN_OR_RETURN(const std::vector<eval::PlayedDialogue> played, store.All());
  const eval::Report report = eval::MakeReport(inputs, policies, played);
  const std::string dir = command.out_dir.empty() ? command.dir : command.out_dir;
  LS_RETURN_IF_ERROR(CreateDirs(dir));
  for (const auto& [name, text] :
       {std::pair("report.html", eval::ToHtml(report)), {"report.md", eval::ToMarkdown(report)}}) {
    const std::filesystem::path path = std::filesystem::path(dir) / name;
    LS_RETURN_IF_ERROR(WriteFileAtomically(path, text));
    std::cout << path.string() << "\n";
  }
  return Status::Ok();
}

}  // namespace

void RegisterEvalReportCommand(CLI::App& eval_command, CommandContext& context) {
  auto command = std::make_shared<EvalReportCommand>();
  CLI::App* report = eval_command.add_subcommand("report", "write the results of a run as HTML and Markdown");
  report->add_option("DIR", command->dir, "the folder that eval run was given as --out")->required();
  report->add_option("--out", command->out_dir, "folder of report.html and report.md; default: DIR");
  report->callback([command, &context] { context.action = [command] { return RunEvalReport(*command); }; });
}

}  // namespace loopserve
