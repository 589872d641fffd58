// A dialogue through the public API, from opening a model to the answers: each turn renders the whole dialogue, and
// only what is new in it is computed. docs/library.md says how a program of your own is built. usage: example_dialogue
// MODEL.gguf QUESTION...
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "loopserve/engine.h"

namespace {

loopserve::Status HoldDialogue(const std::string& model_path, const std::vector<std::string>& questions) {
  loopserve::EngineOptions options;
  options.model_path = model_path;
  LS_ASSIGN_OR_RETURN(const std::shared_ptr<loopserve::Engine> engine, loopserve::Engine::Open(options));
  LS_ASSIGN_OR_RETURN(const loopserve::Policy policy, loopserve::Policy::Parse("loopserve"));
  loopserve::Session session = engine->NewSession(policy);

  std::vector<loopserve::ChatMessage> messages;
  for (const std::string& question : questions) {
    messages.push_back({.role = "user", .content = question});
    // What the session holds is used as it is where it spells the same text: the last answer is not read again.
    LS_ASSIGN_OR_RETURN(const std::vector<loopserve::Token> prompt,
                        engine->RenderChat(messages, /*add_generation_prompt=*/true, session.tokens()));
    LS_ASSIGN_OR_RETURN(const loopserve::SyncStats read, session.Sync(prompt));
    std::printf("> %s\n(%lld tokens, %lld of them new)\n", question.c_str(), static_cast<long long>(read.prompt_tokens),
                static_cast<long long>(read.new_tokens));

    loopserve::SamplingParams sampling;
    sampling.max_tokens = 64;
    const auto show = [](std::string_view text) {
      std::printf("%.*s", static_cast<int>(text.size()), text.data());
      std::fflush(stdout);
      return true;  // go on
    };
    LS_ASSIGN_OR_RETURN(const loopserve::GenerationStats answer, session.Generate(sampling, show));
    std::printf("\n\n");
    messages.push_back({.role = "assistant", .content = answer.text});
  }
  return loopserve::Status::Ok();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL.gguf QUESTION...\n", argv[0]);
    return 2;
  }
  const loopserve::Status status = HoldDialogue(argv[1], {argv + 2, argv + argc});
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
