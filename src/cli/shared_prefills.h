// The first turn of a dialogue, read once for all policies whose prefill computes the same. Thread rule: one thread.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "eval/dialogue_file.h"
#include "loopserve/engine.h"
#include "src/cli/conversation.h"

namespace loopserve {

class SharedPrefills {
 public:
  /// control: of the reading; must outlive this.
  SharedPrefills(std::shared_ptr<Engine> engine, const RunControl& control)
      : engine_(std::move(engine)), control_(control) {}

  /// The policies that the dialogue will be opened under, each once. Frees what was shared before.
  void Expect(const eval::WrittenDialogue& dialogue, const std::vector<Policy>& policies);

  struct Opened {
    EngineConversation conversation;
    bool has_read = false;                 ///< the first turn, in a reading that others share
    std::optional<double> peak_rss_bytes;  ///< of that reading
  };
  /// A conversation for an expected policy. One that shares its prefill with another expected one has read the first
  /// turn already: by the first that is opened, which is kept until the last of them is. Errors: those of reading.
  Result<Opened> Open(const eval::WrittenDialogue& dialogue, const Policy& policy);

 private:
  /// Policies with one prefill.
  struct Group {
    std::vector<Policy> policies;  ///< that are still to be opened
    std::optional<EngineConversation> reader;
    std::optional<double> peak_rss_bytes;
  };

  Status Read(const eval::WrittenDialogue& dialogue, Group* group);

  std::shared_ptr<Engine> engine_;
  const RunControl& control_;
  std::string dialogue_;  // its id
  std::vector<Group> groups_;
};

/// The messages of a dialogue before its first answer.
std::vector<ChatMessage> FirstMessages(const eval::WrittenDialogue& dialogue);

}  // namespace loopserve
