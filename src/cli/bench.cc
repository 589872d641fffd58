#include "src/cli/bench.h"

#include <stdlib.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>

#include "bench/own_engine.h"
#include "bench/peers/llama_cpp_engine.h"
#include "bench/peers/openvino_peer.h"
#include "bench/worker.h"
#include "bench/worker_process.h"
#include "src/base/format.h"
#include "src/cli/command.h"
#include "src/cli/interrupt.h"
#include "src/cli/model_options.h"
#include "src/cli/status_line.h"

namespace loopserve {
namespace {

using bench::Contestant;
using bench::EngineSpec;
using bench::SpeedCase;

constexpr char kWorkerCommand[] = "bench-worker";
constexpr double kBusyLoad = 0.5;
constexpr int64_t kMaxTokens = int64_t{1} << 24;
// What an engine may need beyond the tokens that are run (blocks, padding).
constexpr int64_t kSpareTokens = 8;

struct BenchCommand {
  ModelOptions model;
  std::string text_path;
  std::vector<int64_t> contexts;
  std::vector<int64_t> whole_prompts;
  int64_t new_tokens = 128;
  int gen_tokens = 32;
  std::string policies = "dense,loopserve";
  std::vector<std::string> peers;
  int rounds = 3;
  std::string openvino_python;
  std::string openvino_kv;
  int eviction_tokens = 1184;
  int timeout_seconds = 1800;
  std::string json_path;
};

/// What the table is measured on.
struct BenchInput {
  std::string model_path;
  ModelInfo model;
  std::vector<SpeedCase> cases;
  int64_t longest_tokens = 0;  ///< of all cases, answer included
  std::vector<Token> text;
  int64_t n_special = 0;
  std::string text_name;
  bool repeated = false;
};

Result<std::vector<Token>> BenchText(const BenchCommand& command, const Engine& engine, size_t count,
                                     BenchInput* input) {
  if (command.text_path.empty()) {
    input->text_name = "synthetic";
    return bench::SyntheticTokens(
        engine.model().n_vocab,
        [&](Token token) {
          return engine.Detokenize({&token, 1});
        },
        count);
  }
  LS_ASSIGN_OR_RETURN(const std::string text, bench::ReadText(command.text_path));
  LS_ASSIGN_OR_RETURN(const std::vector<Token> tokens, engine.Tokenize(text, false, false));
  if (tokens.empty()) return Status(StatusCode::kInvalidArgument, command.text_path + ": the text has no tokens");
  input->text_name = command.text_path;
  input->repeated = tokens.size() < count;
  return bench::RepeatTokens(tokens, count);
}

Result<BenchInput> ReadInput(const BenchCommand& command) {
  BenchInput input;
  LS_ASSIGN_OR_RETURN(const std::shared_ptr<Engine> engine, OpenEngine(command.model));
  LS_ASSIGN_OR_RETURN(input.model_path, ResolveModelPath(command.model.model));
  input.model = engine->model();
  std::vector<int64_t> contexts = command.contexts;
  if (contexts.empty() && command.whole_prompts.empty()) contexts = {512, 2048};
  input.cases = SpeedCases(contexts, command.new_tokens, command.whole_prompts);
  int64_t text_tokens = 0;
  for (const SpeedCase& speed_case : input.cases) {
    text_tokens = std::max(text_tokens, bench::SpeedTextTokens(speed_case, command.rounds));
    input.longest_tokens =
        std::max(input.longest_tokens, speed_case.context_tokens + speed_case.new_tokens + command.gen_tokens);
  }
  if (input.longest_tokens > input.model.context_tokens) {
    return Status(StatusCode::kContextLength, "the longest case has " + FormatCount(input.longest_tokens) +
                                                  " tokens with its answer, the model's context is " +
                                                  FormatCount(input.model.context_tokens));
  }
  LS_ASSIGN_OR_RETURN(input.text, engine->Tokenize("", true, false));
  input.n_special = static_cast<int64_t>(input.text.size());
  LS_ASSIGN_OR_RETURN(const std::vector<Token> text,
                      BenchText(command, *engine, static_cast<size_t>(text_tokens), &input));
  input.text.insert(input.text.end(), text.begin(), text.end());
  return input;
}

Result<std::vector<std::string>> WorkerCommand(const std::string& engine, const BenchCommand& command) {
  if (engine == "openvino") return bench::OpenVinoCommand(command.openvino_python);
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return Status(StatusCode::kUnsupported, "this system does not say where the program is");
  return std::vector<std::string>{self.string(), kWorkerCommand};
}

Result<std::vector<Contestant>> Contestants(const BenchCommand& command, const BenchInput& input) {
  std::vector<std::pair<std::string, std::string>> names;
  LS_ASSIGN_OR_RETURN(const std::vector<Policy> policies, ParsePolicies(command.policies));
  for (const Policy& policy : policies) names.emplace_back("loopserve", policy.ToString());
  for (const std::string& peer : command.peers) {
    if (peer == "llama.cpp") {
      names.insert(names.end(), {{peer, "flash_attention"}, {peer, "no_flash_attention"}});
    } else {
      names.insert(
          names.end(),
          {{peer, "full"}, {peer, "xattention"}, {peer, "eviction:" + std::to_string(command.eviction_tokens)}});
    }
  }
  std::vector<Contestant> contestants;
  for (const auto& [engine, policy] : names) {
    EngineSpec spec{.engine = engine, .policy = policy, .model_path = input.model_path};
    spec.threads = input.model.threads;
    spec.max_tokens = input.longest_tokens + kSpareTokens;
    if (engine == "loopserve") {
      spec.max_tokens = input.longest_tokens;
      spec.kv = command.model.kv_type;
      spec.linear_path = command.model.linear;
    }
    if (engine == "openvino") spec.kv = command.openvino_kv;
    contestants.push_back({.spec = spec, .start = [spec, &command]() -> Result<std::unique_ptr<bench::MeasuredEngine>> {
                             LS_ASSIGN_OR_RETURN(const auto worker, WorkerCommand(spec.engine, command));
                             LS_ASSIGN_OR_RETURN(
                                 auto process,
                                 bench::WorkerProcess::Start(
                                     worker, spec, std::chrono::seconds(command.timeout_seconds), &InterruptFlag()));
                             return std::unique_ptr<bench::MeasuredEngine>(std::move(process));
                           }});
  }
  return contestants;
}

Json Document(const BenchCommand& command, const BenchInput& input, const bench::MachineBound& bound,
              double load_average, Json report) {
  Json document = {{"model", input.model.description},
                   {"threads", input.model.threads},
                   {"rows", std::move(report["rows"])},
                   {"skipped", std::move(report["skipped"])},
                   {"gen_tokens", command.gen_tokens},
                   {"rounds", command.rounds},
                   {"text", input.text_name},
                   {"text_repeated", input.repeated},
                   {"machine",
                    {{"f32_gflops", bound.f32_gflops},
                     {"bf16_gflops", JsonOrNull(bound.bf16_gflops)},
                     {"read_gbytes_per_second", bound.read_gbytes_per_s},
                     {"load_average_before", load_average}}}};
  return document;
}

Status RunBench(const BenchCommand& command) {
  if (!command.json_path.empty()) LS_RETURN_IF_ERROR(CheckJsonPath(command.json_path));
  LS_ASSIGN_OR_RETURN(BenchInput input, ReadInput(command));
  LS_ASSIGN_OR_RETURN(const bench::ModelCost cost, bench::ModelCost::Read(input.model_path));
  LS_ASSIGN_OR_RETURN(const std::vector<Contestant> contestants, Contestants(command, input));
  double load_average = 0;
  if (getloadavg(&load_average, 1) == 1 && load_average > kBusyLoad) {
    std::cerr << "loopserve: note: other programs are using this machine (load average " << FormatFixed(load_average, 1)
              << "): the figures will be worse than they could be\n";
  }
  if (input.repeated) std::cerr << "loopserve: note: the text is too short and is repeated\n";
  const bench::MachineBound bound = bench::MeasureMachineBound(input.model.threads);

  StatusLine status_line;
  bench::SpeedOptions options;
  options.cases = input.cases;
  options.gen_tokens = command.gen_tokens;
  options.rounds = command.rounds;
  options.text = std::move(input.text);
  options.n_special = input.n_special;
  options.cancel = &InterruptFlag();
  options.on_progress = [&](const std::string& what) { status_line.Show(what, true); };
  const Result<bench::SpeedReport> report = bench::MeasureSpeed(options, contestants);
  status_line.Clear();
  LS_RETURN_IF_ERROR(report.status());
  if (command.json_path != "-") {
    std::cout << bench::FormatSpeedTable(*report, cost, bound, input.model.threads) << std::flush;
  }
  if (command.json_path.empty()) return Status::Ok();
  return WriteJson(command.json_path, Document(command, input, bound, load_average, SpeedReportToJson(*report, cost)));
}

Status RunWorker() {
  bench::ServeWorker(std::cin, std::cout, [](const EngineSpec& spec) -> Result<std::unique_ptr<bench::MeasuredEngine>> {
    if (spec.engine == "loopserve") return bench::MakeOwnEngine(spec);
    if (spec.engine == "llama.cpp") return bench::MakeLlamaCppEngine(spec);
    return Status(StatusCode::kInvalidArgument, "unknown engine '" + spec.engine + "'");
  });
  return Status::Ok();
}

void AddCaseOptions(CLI::App& sub, BenchCommand* command) {
  sub.add_option("--contexts", command->contexts, "context lengths in tokens, filled before the timing; 0: none")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{0}, kMaxTokens));
  sub.add_option("--new-tokens", command->new_tokens, "tokens on top of each context, whose TTFT is timed")
      ->check(CLI::Range(int64_t{1}, kMaxTokens))
      ->capture_default_str();
  sub.add_option("--whole-prompt", command->whole_prompts, "prompt lengths to time from nothing")
      ->delimiter(',')
      ->check(CLI::Range(int64_t{1}, kMaxTokens));
  sub.add_option("--gen-tokens", command->gen_tokens, "tokens to write after that; their mean time is TPOT")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  sub.add_option("--rounds", command->rounds, "how often each engine is timed; the median counts")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  sub.add_option("--text", command->text_path, "a text to run on; without it one is made up of the model's words");
}

void AddPeerOptions(CLI::App& sub, BenchCommand* command) {
  sub.add_option("--peers", command->peers, "engines to race: llama.cpp, openvino")
      ->delimiter(',')
      ->check(CLI::IsMember({"llama.cpp", "openvino"}));
  sub.add_option("--openvino-python", command->openvino_python,
                 "a Python that has openvino_genai; default: what tools/setup bench-peers installed");
  sub.add_option("--openvino-kv", command->openvino_kv, "OpenVINO's KV precision; default: its own, u8")
      ->check(CLI::IsMember({"u8", "f16"}));
  sub.add_option("--eviction-tokens", command->eviction_tokens, "OpenVINO's KV cache with eviction")
      ->check(CLI::Range(192, 1 << 20))
      ->capture_default_str();
  sub.add_option("--timeout", command->timeout_seconds, "seconds that one run may take")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
}

}  // namespace

void RegisterBenchCommand(CLI::App& app, CommandContext& context) {
  auto command = std::make_shared<BenchCommand>();
  CLI::App* sub = app.add_subcommand("bench", "measure speed, beside other engines in the same run");
  AddModelOptions(*sub, &command->model);
  sub->remove_option(sub->get_option("--context"));
  sub->add_option("--policies", command->policies, "policies to measure, separated by commas")->capture_default_str();
  AddCaseOptions(*sub, command.get());
  AddPeerOptions(*sub, command.get());
  sub->add_option("--json", command->json_path, "report file; -: stdout, with nothing else there");
  sub->callback([command, &context] { context.action = [command] { return RunBench(*command); }; });

  CLI::App* worker = app.add_subcommand(kWorkerCommand, "one engine of bench, in its own process");
  worker->group("");
  worker->callback([&context] { context.action = RunWorker; });
}

}  // namespace loopserve
