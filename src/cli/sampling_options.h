// The options of how an answer is drawn. Thread rule: main thread.
#pragma once

#include "loopserve/sampling.h"

namespace CLI {
class App;
}

namespace loopserve {

/// Adds --max-tokens, --temperature, --top-k, --top-p, --min-p, --repeat-penalty, --presence-penalty,
/// --frequency-penalty, --penalty-window, --seed, --stop and --ignore-end-of-text, with what `params` holds as their
/// defaults. Ranges are checked by SamplingParams::Validate. `params` must outlive the parsing.
void AddSamplingOptions(CLI::App& command, SamplingParams* params);

}  // namespace loopserve
