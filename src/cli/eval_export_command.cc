// `loopserve eval export`: a run's results as JSON, or as text that is kept and read back; `loopserve eval import`.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include "eval/json_fields.h"
#include "eval/result_json.h"
#include "eval/result_report.h"
#include "eval/result_text.h"
#include "src/base/atomic_file.h"
#include "src/base/format.h"
#include "src/cli/command.h"
#include "src/cli/eval_results.h"
#include "src/cli/json_output.h"

namespace loopserve {
namespace {

struct EvalExportCommand {
  std::string dir;
  std::string json_path;
  std::string text_path;
};

struct EvalImportCommand {
  std::string path;
  std::string dir;
};

Status RunEvalExport(const EvalExportCommand& command) {
  LS_ASSIGN_OR_RETURN(eval::ResultStore store, eval::ResultStore::OpenResults(command.dir));
  LS_ASSIGN_OR_RETURN(const eval::StoredResults results, store.Load());
  if (command.text_path == "-") {
    std::cout << eval::ResultsToText(results);
  } else if (!command.text_path.empty()) {
    LS_RETURN_IF_ERROR(WriteFileAtomically(command.text_path, eval::ResultsToText(results)));
  }
  if (command.text_path.empty() || !command.json_path.empty()) {
    const std::string path = command.json_path.empty() ? ResultsJsonPath(command.dir) : command.json_path;
    LS_RETURN_IF_ERROR(WriteResultsJson(path, results));
  }
  if (command.json_path != "-" && command.text_path != "-") std::cout << eval::ScoreTable(results.played);
  return Status::Ok();
}

Status RunEvalImport(const EvalImportCommand& command) {
  LS_ASSIGN_OR_RETURN(std::ifstream in, eval::OpenTextFile(command.path));
  LS_ASSIGN_OR_RETURN(const eval::StoredResults results, eval::ParseResultsText(in, command.path));
  eval::RunInputs inputs, notes;
  for (const auto& [key, value] : results.run) {
    (eval::IsNote(key) ? notes : inputs).emplace_back(key, value);
  }
  LS_ASSIGN_OR_RETURN(eval::ResultStore store, eval::ResultStore::OpenRun(command.dir, inputs));
  LS_ASSIGN_OR_RETURN(const int64_t joined, store.Merge(results));
  for (const auto& [key, value] : notes) LS_RETURN_IF_ERROR(store.Note(key, value));
  LS_ASSIGN_OR_RETURN(const eval::StoredResults all, store.Load());
  std::cout << eval::ScoreTable(all.played) << FormatCount(joined) << " joined; " << FormatCount(std::ssize(all.played))
            << " are stored; dialogues times policies\n";
  return WriteResultsJson(ResultsJsonPath(command.dir), all);
}

}  // namespace

std::string ResultsJsonPath(const std::string& dir) { return (std::filesystem::path(dir) / "results.json").string(); }

Status WriteResultsJson(const std::string& path, const eval::StoredResults& results) {
  return WriteJson(path, eval::ResultsToJson(results));
}

void RegisterEvalExportCommands(CLI::App& eval_command, CommandContext& context) {
  auto out = std::make_shared<EvalExportCommand>();
  CLI::App* write = eval_command.add_subcommand("export", "write the results of a run as JSON or as lines of text");
  write->add_option("DIR", out->dir, "the folder that eval run was given as --out")->required();
  write->add_option("--json", out->json_path, "the file; -: stdout; default: DIR/results.json, without --text");
  write->add_option("--text", out->text_path, "a small file that eval import reads back; -: stdout");
  write->callback([out, &context] { context.action = [out] { return RunEvalExport(*out); }; });

  auto in = std::make_shared<EvalImportCommand>();
  CLI::App* read = eval_command.add_subcommand("import", "put results that were exported as text into a folder");
  read->add_option("FILE", in->path, "what eval export --text wrote")->required();
  read->add_option("--out", in->dir, "folder of the results; a run that is there gets what it does not have")
      ->required();
  read->callback([in, &context] { context.action = [in] { return RunEvalImport(*in); }; });
}

}  // namespace loopserve
