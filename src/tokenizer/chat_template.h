// A model's chat template: messages in, the text of the dialogue out, with every byte marked as the template's or the
// message's. Run by llama.cpp's Jinja engine.
//
// Templates come from model files and may be hostile. Bounded here: nesting (the engine's parser and interpreter
// recurse), loops, macro calls and their depth, and range(). Not bounded, because the engine has no place for it:
// memory of strings that a template doubles again and again, and values that a template puts into themselves and then
// prints. Thread rule: const methods are thread-safe.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/status.h"

namespace loopserve {

struct RenderedChat {
  std::string text;
  std::vector<bool> from_template;  ///< one flag per byte of text
};

class ChatTemplate {
 public:
  /// Errors: kUnsupported, with the parser's own words.
  static Result<std::unique_ptr<ChatTemplate>> Parse(const std::string& source);
  ~ChatTemplate();

  /// Messages must be valid UTF-8. Errors: kInvalidArgument, with the template's own words.
  Result<RenderedChat> Render(std::span<const ChatMessage> messages, bool add_generation_prompt,
                              const std::string& bos_text, const std::string& eos_text) const {
    return Render({messages, add_generation_prompt, ""}, bos_text, eos_text);
  }
  /// The same with tools. kInvalidArgument too where they, or a call's arguments, are not JSON of bounded depth.
  Result<RenderedChat> Render(const ChatInput& input, const std::string& bos_text, const std::string& eos_text) const;

 private:
  ChatTemplate();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace loopserve
