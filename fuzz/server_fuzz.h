// What the fuzz targets of the server share.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "src/base/check.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve::server {

/// Inputs to begin with; each target has its own.
std::vector<std::string> FuzzSeeds();

/// A model of one layer and 256 tokens of context, so that the longest answer takes a moment.
inline std::shared_ptr<Engine> TinyEngine() {
  const auto path = std::filesystem::temp_directory_path() / ("loopserve_fuzz_" + std::to_string(getpid()) + ".gguf");
  TinyGgufOptions model = TinyModel(TinyFamily::kLlama);
  model.n_layers = 1;
  model.n_embd = model.n_ff = 32;
  model.context_tokens = 256;
  model.chat_template =
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% "
      "endif %}";
  LS_CHECK(WriteTinyGguf(model, path.string()).ok());
  EngineOptions options;
  options.model_path = path.string();
  options.threads = 1;
  auto engine = Engine::Open(options);
  LS_CHECK(engine.ok());
  std::filesystem::remove(path);
  // ggml has statics that its first product makes. They must outlive a static server whose answers still run at exit.
  LS_CHECK((*engine)->NewSession().Sync(std::vector<Token>{1}).ok());
  return *engine;
}

}  // namespace loopserve::server
