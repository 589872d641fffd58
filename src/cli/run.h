// `loopserve run`: plays written dialogues against a model and reports each turn.
// Thread rule: main thread.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "eval/dialogue_file.h"
#include "loopserve/sampling.h"
#include "src/cli/conversation.h"
#include "src/cli/json_output.h"

namespace loopserve {

struct DialogueRunOptions {
  SamplingParams sampling;
  /// Where the dialogue and its figures are shown; null: nowhere.
  std::ostream* out = nullptr;
  RunControl control;
  std::vector<ChatMessage> past;  ///< messages of a stored dialogue that every dialogue goes on from
  /// Called after each turn with all messages.
  std::function<Status(const Conversation&, std::span<const ChatMessage>)> save;
};

struct DialogueRunResult {
  Json dialogues = Json::array();  ///< {"id", "turns", "error"?} each
  int failed = 0;                  ///< dialogues that ended in an error
  Status status;                   ///< kCancelled or kIoError (`out`): what was done until then is in `dialogues`
};

/// make_conversation is called for every dialogue. A dialogue that fails gets an "error" and the next one goes on.
DialogueRunResult RunDialogues(std::span<const eval::WrittenDialogue> dialogues,
                               const std::function<std::unique_ptr<Conversation>()>& make_conversation,
                               const DialogueRunOptions& options);

}  // namespace loopserve
