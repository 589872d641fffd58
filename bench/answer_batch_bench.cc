// What it brings to write several answers in one pass: tokens a second of 1, 2, 4, ... dialogues together, one by one
// and in shared steps, turn by turn in one run, beside what reading weights and KV allows.
// usage: answer_batch_bench MODEL.gguf [POLICY [CONTEXT [MOST_DIALOGUES [THREADS]]]]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "bench/machine_bound.h"
#include "bench/model_cost.h"
#include "loopserve/engine.h"

namespace loopserve {
namespace {

constexpr int kRounds = 12;
constexpr int kSteps = 6;  // of a round: tokens of each dialogue, each way
constexpr double kBytesPerValue = 2;

struct Dialogue {
  std::unique_ptr<Session> session;
  std::unique_ptr<Answer> answer;
};

std::vector<Token> Tokens(const Engine& engine, size_t n, uint32_t random) {
  std::vector<Token> tokens(n);
  for (Token& token : tokens) {
    random = random * 1664525u + 1013904223u;
    token = static_cast<Token>((random >> 8) % static_cast<uint32_t>(engine.model().n_vocab));
  }
  return tokens;
}

Result<Dialogue> Begin(const Engine& engine, const Policy& policy, size_t context, uint32_t seed) {
  Dialogue dialogue{std::make_unique<Session>(engine.NewSession(policy)), nullptr};
  LS_RETURN_IF_ERROR(dialogue.session->Sync(Tokens(engine, context, seed)).status());
  SamplingParams params;
  params.max_tokens = -1;
  params.ignore_end_of_text = true;
  LS_ASSIGN_OR_RETURN(Answer answer, dialogue.session->BeginAnswer(params));
  dialogue.answer = std::make_unique<Answer>(std::move(answer));
  return dialogue;
}

/// Seconds of kSteps tokens of each.
template <class Step>
Result<double> Time(const Step& step) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kSteps; ++i) LS_RETURN_IF_ERROR(step());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<ptrdiff_t>(values.size() / 2));
  return values[values.size() / 2];
}

Status Measure(const Engine& engine, const std::vector<Answer*>& answers, const bench::ModelCost& cost,
               double bytes_per_second, size_t context) {
  const auto one_by_one = [&]() -> Status {
    for (Answer* answer : answers) LS_RETURN_IF_ERROR(answer->Next().status());
    return Status::Ok();
  };
  const auto together = [&]() -> Status {
    for (const auto& step : engine.StepAnswers(answers)) LS_RETURN_IF_ERROR(step.status());
    return Status::Ok();
  };
  LS_RETURN_IF_ERROR(together());  // what is built once
  std::vector<double> alone_s, together_s, ratios;
  for (int round = 0; round < kRounds; ++round) {
    LS_ASSIGN_OR_RETURN(const double alone, Time(one_by_one));
    LS_ASSIGN_OR_RETURN(const double shared, Time(together));
    alone_s.push_back(alone);
    together_s.push_back(shared);
    ratios.push_back(alone / shared);
  }
  const auto n = static_cast<double>(answers.size());
  const double fraction = answers.front()->stats().decode_kv_fraction.value_or(1.0);
  const double all = cost.DecodeBytes(static_cast<int64_t>(context), kBytesPerValue, fraction);
  const double kv = all - static_cast<double>(cost.weight_bytes);
  const double bound_s = (static_cast<double>(cost.weight_bytes) + n * kv) / bytes_per_second;
  std::printf("| %zu | %zu | %.1f | %.1f | %.2f | %.1f | %.1f | %.2f |\n", context, answers.size(),
              n * kSteps / Median(alone_s), n * kSteps / Median(together_s), Median(ratios), bytes_per_second / all,
              n / bound_s, bound_s * kSteps / Median(together_s));
  std::fflush(stdout);
  return Status::Ok();
}

Status Main(int argc, char** argv) {
  if (argc < 2) {
    return Status(StatusCode::kInvalidArgument,
                  "usage: answer_batch_bench MODEL [POLICY [CONTEXT [MOST_DIALOGUES [THREADS]]]]");
  }
  LS_ASSIGN_OR_RETURN(const Policy policy, Policy::Parse(argc > 2 ? argv[2] : "dense"));
  const size_t context = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 1024;
  const size_t most = argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 8;
  EngineOptions options;
  options.model_path = argv[1];
  options.threads = argc > 5 ? std::atoi(argv[5]) : 0;
  LS_ASSIGN_OR_RETURN(const auto engine, Engine::Open(options));
  LS_ASSIGN_OR_RETURN(const bench::ModelCost cost, bench::ModelCost::Read(argv[1]));
  const double bytes_per_second = 1e9 * bench::MeasureMachineBound(engine->model().threads).read_gbytes_per_s;
  std::printf("%s, %s, threads %d, %.1f GB/s\n\n", engine->model().description.c_str(), policy.ToString().c_str(),
              engine->model().threads, bytes_per_second / 1e9);
  std::printf(
      "| context | dialogues | one by one, tokens/s | together, tokens/s | ratio | bound one by one | bound "
      "together | of the bound |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n");
  std::vector<Dialogue> dialogues;
  for (size_t n = 1; n <= most; n *= 2) {
    while (dialogues.size() < n) {
      LS_ASSIGN_OR_RETURN(Dialogue dialogue,
                          Begin(*engine, policy, context, static_cast<uint32_t>(dialogues.size() + 1)));
      dialogues.push_back(std::move(dialogue));
    }
    std::vector<Answer*> answers;
    for (const Dialogue& dialogue : dialogues) answers.push_back(dialogue.answer.get());
    LS_RETURN_IF_ERROR(Measure(*engine, answers, cost, bytes_per_second, context));
  }
  return Status::Ok();
}

}  // namespace
}  // namespace loopserve

int main(int argc, char** argv) {
  const loopserve::Status status = loopserve::Main(argc, argv);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
