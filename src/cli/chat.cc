#include "src/cli/chat.h"

#include "eval/dialogue_file.h"
#include "src/base/atomic_file.h"
#include "src/base/format.h"
#include "src/base/utf8.h"
#include "src/cli/turn_report.h"

namespace loopserve {
namespace {

constexpr char kHelp[] =
    "/help            this\n"
    "/stats           figures of every turn, and the memory that the dialogue takes\n"
    "/reset           forget the dialogue, keep the system message\n"
    "/system [TEXT]   set the system message (without TEXT: remove it); what follows it is read again\n"
    "/save FILE       write the dialogue as a line for `loopserve run --dialogue`\n"
    "/quit            end (or Ctrl-D)\n"
    "A line that ends in \\ goes on in the next one. A message may begin with // for a slash. Ctrl-C stops an "
    "answer.\n";

bool IsBlank(const std::string& text) { return text.find_first_not_of(" \t") == std::string::npos; }

std::string Trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t");
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

}  // namespace

ChatLoop::ChatLoop(Conversation& conversation, LineSource& in, std::ostream& out, std::ostream& notes,
                   ChatOptions options)
    : conversation_(conversation), in_(in), out_(out), notes_(notes), options_(std::move(options)) {
  messages_ = std::move(options_.past);
  if (!options_.system.empty()) SetSystem(options_.system);
}

void ChatLoop::Prompt(const char* prompt) {
  if (options_.interactive) notes_ << prompt << std::flush;
}

// One message, of one line or of several that end in a backslash.
Result<LineKind> ChatLoop::ReadTurn(std::string* text) {
  text->clear();
  Prompt("> ");
  while (true) {
    std::string line;
    LS_ASSIGN_OR_RETURN(const LineKind kind, in_.Read(&line));
    if (kind == LineKind::kInterrupted) return kind;
    if (kind == LineKind::kEnd) return text->empty() ? LineKind::kEnd : LineKind::kLine;
    if (!line.ends_with('\\')) {
      *text += line;
      return LineKind::kLine;
    }
    line.back() = '\n';
    *text += line;
    Prompt(". ");
  }
}

Status ChatLoop::Run() {
  if (options_.interactive) notes_ << conversation_.model().description << "\n/help shows the commands.\n";
  std::string text;
  while (true) {
    LS_ASSIGN_OR_RETURN(const LineKind kind, ReadTurn(&text));
    if (kind == LineKind::kEnd) break;
    if (kind == LineKind::kInterrupted) {
      if (!options_.interactive) return Status(StatusCode::kCancelled, "interrupted");
      if (options_.clear_interrupt) options_.clear_interrupt();
      // What the flag still says after it was cleared is a request to end (SIGTERM).
      if (options_.interrupt != nullptr && options_.interrupt->load()) break;
      notes_ << "\n(/quit or Ctrl-D ends the chat)\n";
      continue;
    }
    Result<Next> next = Handle(text);
    // An interrupt that stopped the answer must not count again at the prompt.
    if (options_.clear_interrupt) options_.clear_interrupt();
    if (!out_) return Status(StatusCode::kIoError, "cannot write to stdout");
    if (!next.ok()) {
      if (!options_.interactive) return next.status();
      notes_ << "error: " << next.status().message() << "\n";
      continue;
    }
    if (*next == Next::kQuit) return Status::Ok();
  }
  Prompt("\n");
  return Status::Ok();
}

Result<ChatLoop::Next> ChatLoop::Handle(const std::string& text) {
  if (IsBlank(text)) return Next::kGoOn;
  if (text.starts_with("//")) {
    LS_RETURN_IF_ERROR(TakeTurn(text.substr(1)));
    return Next::kGoOn;
  }
  if (text.starts_with("/")) return Command(text);
  LS_RETURN_IF_ERROR(TakeTurn(text));
  return Next::kGoOn;
}

Result<ChatLoop::Next> ChatLoop::Command(const std::string& text) {
  const size_t space = text.find_first_of(" \t\n");
  const std::string name = text.substr(0, space);
  const std::string argument = space == std::string::npos ? "" : Trim(text.substr(space + 1));
  if (name == "/quit" || name == "/exit") return Next::kQuit;
  if (name == "/help") {
    out_ << kHelp << std::flush;
  } else if (name == "/stats") {
    ShowStats();
  } else if (name == "/reset") {
    messages_.resize(!messages_.empty() && messages_[0].role == "system" ? 1 : 0);
    turn_lines_.clear();
    conversation_.Reset();
    Prompt("(forgotten)\n");
  } else if (name == "/system") {
    SetSystem(argument);
  } else if (name == "/save") {
    LS_RETURN_IF_ERROR(Save(argument));
  } else {
    return Status(StatusCode::kInvalidArgument, "no such command: " + name + " (see /help)");
  }
  return Next::kGoOn;
}

Status ChatLoop::TakeTurn(const std::string& text) {
  if (!IsValidUtf8(text)) return Status(StatusCode::kInvalidArgument, "the message is not valid UTF-8");
  messages_.push_back({"user", text});
  if (options_.clear_interrupt) options_.clear_interrupt();
  RunControl control;
  control.cancel = options_.interrupt;
  control.on_progress = options_.show_progress;
  const TextCallback on_text = [&](std::string_view piece) {
    if (options_.show_progress) options_.show_progress(1);
    out_ << piece << std::flush;
    return out_.good();
  };
  const Result<TurnResult> turn = conversation_.Answer(messages_, options_.sampling, on_text, control);
  if (options_.show_progress) options_.show_progress(1);
  const bool stopped_before_answer = turn.status().code() == StatusCode::kCancelled;
  if (!turn.ok()) messages_.pop_back();  // the next message follows the last answer
  if (stopped_before_answer && options_.interactive) {
    notes_ << "\n(stopped; the message is forgotten)\n";
    return Status::Ok();
  }
  LS_RETURN_IF_ERROR(turn.status());
  out_ << "\n" << std::flush;
  messages_.push_back({"assistant", turn->generation.text});
  turn_lines_.push_back(FormatTurn(*turn));
  if (options_.save) LS_RETURN_IF_ERROR(options_.save(messages_));
  const StopReason reason = turn->generation.stop_reason;
  if (reason == StopReason::kCancelled && !options_.interactive) return Status(StatusCode::kCancelled, "interrupted");
  if (reason == StopReason::kCancelled) notes_ << "(stopped)\n";
  if (reason == StopReason::kContextFull) notes_ << "note: the context is full; /reset starts anew\n";
  return Status::Ok();
}

void ChatLoop::ShowStats() {
  for (size_t i = 0; i < turn_lines_.size(); ++i) out_ << "turn " << i + 1 << ": " << turn_lines_[i] << "\n";
  out_ << FormatCount(conversation_.held_tokens()) << " of " << FormatCount(conversation_.model().context_tokens)
       << " tokens held, " << FormatBytes(conversation_.kv_bytes()) << " of KV" << std::endl;
}

void ChatLoop::SetSystem(const std::string& system) {
  const bool has_system = !messages_.empty() && messages_[0].role == "system";
  if (has_system) messages_.erase(messages_.begin());
  if (!system.empty()) messages_.insert(messages_.begin(), {"system", system});
}

Status ChatLoop::Save(const std::string& path) {
  if (path.empty()) return Status(StatusCode::kInvalidArgument, "name a file: /save FILE");
  eval::WrittenDialogue dialogue;
  dialogue.id = "chat";
  for (const ChatMessage& message : messages_) {
    if (message.role == "system") dialogue.system = message.content;
    if (message.role == "user") dialogue.turns.push_back({message.content, {}});
    if (message.role == "assistant") dialogue.turns.back().reference.push_back(message.content);
  }
  if (dialogue.turns.empty()) return Status(StatusCode::kInvalidArgument, "there is nothing to save yet");
  LS_RETURN_IF_ERROR(WriteFileAtomically(path, eval::FormatDialogue(dialogue) + "\n"));
  Prompt("(saved)\n");
  return Status::Ok();
}

}  // namespace loopserve
