// `loopserve eval report`: the results of a run as a document for people.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "eval/report.h"
#include "eval/result_store.h"
#include "src/base/atomic_file.h"
#include "src/base/paths.h"
#include "src/cli/command.h"
#include "src/cli/eval_steps.h"

namespace loopserve {
namespace {

struct EvalReportCommand {
  std::string dir;
  std::string out_dir;
};

/// Names of files and what stands in them.
std::vector<std::pair<std::string, std::string>> FilesOf(const eval::Report& report) {
  std::vector<std::pair<std::string, std::string>> files = {{"report.html", eval::ToHtml(report)},
                                                            {"report.md", eval::ToMarkdown(report)}};
  for (const eval::ReportPart& part : report.parts) {
    if (const auto* plot = std::get_if<eval::ReportPlot>(&part)) {
      files.emplace_back(eval::FileNameOf(*plot), eval::ToSvgFile(*plot));
    }
  }
  return files;
}

}  // namespace

Status WriteReport(const std::string& results_dir, const std::string& report_dir) {
  LS_ASSIGN_OR_RETURN(eval::ResultStore store, eval::ResultStore::OpenResults(results_dir));
  LS_ASSIGN_OR_RETURN(const eval::StoredResults results, store.Load());
  const std::string dir = report_dir.empty() ? results_dir : report_dir;
  LS_RETURN_IF_ERROR(CreateDirs(dir));
  for (const auto& [name, text] : FilesOf(eval::MakeReport(results))) {
    const std::filesystem::path path = std::filesystem::path(dir) / name;
    LS_RETURN_IF_ERROR(WriteFileAtomically(path, text));
    std::cout << path.string() << "\n";
  }
  return Status::Ok();
}

void RegisterEvalReportCommand(CLI::App& eval_command, CommandContext& context) {
  auto command = std::make_shared<EvalReportCommand>();
  CLI::App* report =
      eval_command.add_subcommand("report", "write the results of a run as HTML and Markdown, with plots");
  report->add_option("DIR", command->dir, "the folder that eval run was given as --out")->required();
  report->add_option("--out", command->out_dir, "folder of report.html, report.md and the plots; default: DIR");
  report->callback(
      [command, &context] { context.action = [command] { return WriteReport(command->dir, command->out_dir); }; });
}

}  // namespace loopserve
