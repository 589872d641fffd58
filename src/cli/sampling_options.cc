#include "src/cli/sampling_options.h"

#include <CLI/CLI.hpp>

namespace loopserve {

void AddSamplingOptions(CLI::App& command, SamplingParams* params) {
  const auto add = [&](const char* name, auto* value, const char* help) {
    command.add_option(name, *value, help)->capture_default_str()->group("Sampling");
  };
  add("--max-tokens", &params->max_tokens, "longest answer in tokens; -1: to the end of the context");
  add("--temperature", &params->temperature, "0: always the most likely token");
  add("--top-k", &params->top_k, "only the k most likely tokens; 0: all");
  add("--top-p", &params->top_p, "only the most likely tokens with this probability together; 1: all");
  add("--min-p", &params->min_p, "only tokens at least this likely, relative to the most likely one; 0: all");
  add("--repeat-penalty", &params->repeat_penalty, "makes tokens seen before less likely; 1: off");
  add("--presence-penalty", &params->presence_penalty, "subtracted from logits of tokens seen before");
  add("--frequency-penalty", &params->frequency_penalty, "subtracted for each time a token was seen");
  add("--penalty-window", &params->penalty_window, "tokens that the penalties look back over");
  add("--seed", &params->seed, "the same seed gives the same answer");
  command.add_option("--stop", params->stop, "the answer ends before this text; may be given several times")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->group("Sampling");
  command.add_flag("--ignore-end-of-text", params->ignore_end_of_text, "go on when the model ends its answer")
      ->group("Sampling");
}

}  // namespace loopserve
