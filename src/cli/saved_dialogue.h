// Dialogues that `chat --session`, `run --save` and `run --resume` keep on disk: where they are, and their messages in
// the metadata beside the KV (loopserve/session_store.h). Thread rule: main thread.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "loopserve/session_store.h"
#include "src/cli/conversation.h"

namespace CLI {
class App;
}

namespace loopserve {

/// Adds --sessions-dir. `sessions_dir` must outlive the parsing.
void AddSessionsDirOption(CLI::App& command, std::string* sessions_dir);

/// The messages as metadata, and back. kCorruptData: metadata of something else.
std::string ToMetadata(std::span<const ChatMessage> messages);
Result<std::vector<ChatMessage>> FromMetadata(const std::string& metadata);

/// The place of one dialogue: a file, where the name has a slash or ends in ".lssnap", else a name in a folder.
class SavedDialogue {
 public:
  /// sessions_dir empty: $LOOPSERVE_STATE, $XDG_STATE_HOME/loopserve or ~/.local/state/loopserve, and "sessions" in it.
  static Result<SavedDialogue> Open(const std::string& name, const std::string& sessions_dir);

  /// The messages of the stored dialogue; empty if there is none.
  Result<std::optional<std::vector<ChatMessage>>> ReadMessages() const;
  Result<RestoredSession> Restore(const Engine& engine) const;
  Status Save(const Session& session, std::span<const ChatMessage> messages) const;

 private:
  std::string name_;
  std::unique_ptr<SessionStore> store_;  // null: name_ is a file
};

struct ResumedDialogue {
  std::vector<ChatMessage> messages;
  std::optional<Session> session;  ///< empty: to be read again from its messages
  std::string note;                ///< why
};

/// Brings a stored dialogue back; empty if there is none. policy: what was asked for; empty: as it was saved. What
/// cannot go on (another model, policy, ...; a damaged KV) is read again. Errors: text that is damaged too, kIoError.
Result<std::optional<ResumedDialogue>> Resume(const SavedDialogue& saved, const Engine& engine,
                                              const std::optional<Policy>& policy);

}  // namespace loopserve
