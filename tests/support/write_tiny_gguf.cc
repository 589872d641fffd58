// write_tiny_gguf PATH: a tiny random model with a chat template, for tests of whole programs.
#include <cstdio>

#include "tests/support/tiny_gguf.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  loopserve::TinyGgufOptions options = loopserve::TinyModel(loopserve::TinyFamily::kLlama);
  options.chat_template =
      "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}";
  const loopserve::Status status = loopserve::WriteTinyGguf(options, argv[1]);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
