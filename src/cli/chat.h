// `loopserve chat`: turns typed by a user, answers streamed to the screen. ChatLoop knows neither the terminal nor the
// model, so that tests can play both.
// Thread rule: main thread; the interrupt flag may be set from anywhere.
#pragma once

#include <atomic>
#include <functional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "loopserve/sampling.h"
#include "src/cli/conversation.h"
#include "src/cli/line_source.h"

namespace loopserve {

struct ChatOptions {
  SamplingParams sampling;
  std::string system;
  bool interactive = true;  ///< prompts and hints; errors of a turn do not end the program
  const std::atomic<bool>* interrupt = nullptr;
  std::function<void()> clear_interrupt;                     ///< called before and after each turn
  std::function<void(double)> show_progress;                 ///< share of the prompt that was read; 1 when done
  std::vector<ChatMessage> past;                             ///< messages of a stored dialogue that goes on
  std::function<Status(std::span<const ChatMessage>)> save;  ///< called after each turn with all messages
};

class ChatLoop {
 public:
  /// out: answers and what was asked for. notes: prompts, hints and errors. All must outlive this.
  ChatLoop(Conversation& conversation, LineSource& in, std::ostream& out, std::ostream& notes, ChatOptions options);

  /// Until the end of the input or /quit. Not interactive: the first error ends it, an interrupt gives kCancelled.
  Status Run();

 private:
  enum class Next { kGoOn, kQuit };

  Result<LineKind> ReadTurn(std::string* text);
  Result<Next> Handle(const std::string& text);
  Result<Next> Command(const std::string& text);
  Status TakeTurn(const std::string& text);
  void ShowStats();
  Status Save(const std::string& path);
  void SetSystem(const std::string& system);
  void Prompt(const char* prompt);

  Conversation& conversation_;
  LineSource& in_;
  std::ostream& out_;
  std::ostream& notes_;
  ChatOptions options_;
  std::vector<ChatMessage> messages_;  // the system message first, where there is one
  std::vector<std::string> turn_lines_;
};

}  // namespace loopserve
