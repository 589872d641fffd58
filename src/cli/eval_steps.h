// The steps of the benchmark: what `loopserve eval` does one after the other, and its subcommands one by one.
// Thread rule: main thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "loopserve/status.h"
#include "src/cli/model_options.h"

namespace CLI {
class App;
}

namespace loopserve {

struct EvalBuildOptions {
  std::string model;
  std::string data_dir;
  std::vector<std::string> datasets = {"all"};
  std::vector<std::string> positions = {"all"};
  std::vector<std::string> dependencies = {"all"};
  int samples = 1;
  bool mix = false;
  int64_t tokens = 0;
  uint64_t seed = 0;
  std::string out_path;
};

/// Adds what says which dialogues to build: all but the model, --data, --samples and --out.
void AddEvalBuildOptions(CLI::App& command, EvalBuildOptions* options);
/// Writes the dialogues and says on stdout how they came out. *written: whether there is a file, which is so too where
/// some datasets failed, and the error names them.
Status BuildDialogueFile(const EvalBuildOptions& options, bool* written);

struct EvalRunOptions {
  ModelOptions model;
  std::string dialogues_path;
  std::string keep_dialogues_as;  ///< where that file moves once the folder has taken its dialogues; empty: nowhere
  std::string policies = "dense,loopserve";
  std::string out_dir;
  bool fidelity = false;
  int64_t max_answer_tokens = 0;
  int samples = 0;
};

/// Adds --policies, --fidelity and --max-answer-tokens.
void AddEvalRunOptions(CLI::App& command, EvalRunOptions* options);
/// Plays what is not stored yet, stores it and prints the mean scores. kIoError where something failed and the rest is
/// stored, kCancelled where it was interrupted and what was finished is.
Status RunDialogueFile(const EvalRunOptions& options);

/// Writes report.html, report.md and its plots and prints where they are. report_dir: empty: dir.
Status WriteReport(const std::string& dir, const std::string& report_dir);

}  // namespace loopserve
