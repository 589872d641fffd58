// The fields that all ways of asking for an answer share. Unknown fields are ignored; what is known and not supported
// is refused. Thread rule: pure functions.
#pragma once

#include <string>
#include <vector>

#include "src/server/context.h"
#include "src/server/http_types.h"
#include "src/server/job.h"
#include "src/server/json_reader.h"

namespace loopserve::server {

struct GenerationRequest {
  JobSpec spec;  ///< without its prompt
  bool stream = false;
  bool include_usage = false;    ///< stream_options.include_usage
  bool return_progress = false;  ///< progress of the prompt as events of a stream
  std::string model;             ///< as the client called it; the server's own name where it did not
};

/// Everything but the prompt, logprobs and how many tokens (those names differ). kInvalidArgument, kUnsupported.
Result<GenerationRequest> ParseGeneration(const Context& context, const HttpRequest& http, const JsonIn& body);

/// The longest answer, by the first of these fields that is there; two that differ are an error.
Status ParseMaxTokens(const JsonIn& body, const std::vector<std::string>& names, SamplingParams* sampling);

/// Refuses fields that ask for something this server does not do, unless they ask for nothing (false, [], {}).
Status RefuseFields(const JsonIn& body, const std::vector<std::string>& names);

/// kContextLength, with the numbers, where the prompt and the answer that was asked for are longer than the context.
Status CheckLength(const Context& context, size_t prompt_tokens, const SamplingParams& sampling);

}  // namespace loopserve::server
