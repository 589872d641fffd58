#include "src/cli/saved_dialogue.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <utility>

#include "src/base/paths.h"

namespace loopserve {

void AddSessionsDirOption(CLI::App& command, std::string* sessions_dir) {
  command.add_option("--sessions-dir", *sessions_dir,
                     "folder of named sessions; default: sessions in the state folder");
}

std::string ToMetadata(std::span<const ChatMessage> messages) {
  nlohmann::json list = nlohmann::json::array();
  for (const ChatMessage& message : messages) list.push_back({{"role", message.role}, {"content", message.content}});
  return nlohmann::json{{"messages", std::move(list)}}.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Result<std::vector<ChatMessage>> FromMetadata(const std::string& metadata) {
  const Status other(StatusCode::kCorruptData, "the stored session was not saved by chat or run: it has no messages");
  const nlohmann::json json = nlohmann::json::parse(metadata, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("messages") || !json["messages"].is_array()) return other;
  std::vector<ChatMessage> messages;
  for (const nlohmann::json& entry : json["messages"]) {
    const bool is_message = entry.is_object() && entry.contains("role") && entry["role"].is_string() &&
                            entry.contains("content") && entry["content"].is_string();
    if (!is_message) return other;
    messages.push_back({entry["role"].get<std::string>(), entry["content"].get<std::string>()});
  }
  return messages;
}

Result<SavedDialogue> SavedDialogue::Open(const std::string& name, const std::string& sessions_dir) {
  SavedDialogue saved;
  saved.name_ = name;
  if (name.find('/') != std::string::npos || name.ends_with(".lssnap")) return saved;
  std::string folder = sessions_dir;
  if (folder.empty()) {
    LS_ASSIGN_OR_RETURN(const auto state, StateDir());
    folder = (state / "sessions").string();
    LS_RETURN_IF_ERROR(CreateDirs(state));
  }
  LS_ASSIGN_OR_RETURN(saved.store_, SessionStore::Open({folder, 0}));
  return saved;
}

Result<std::optional<std::vector<ChatMessage>>> SavedDialogue::ReadMessages() const {
  const Result<StoredText> text = store_ != nullptr ? store_->ReadText(name_) : ReadSessionText(name_);
  if (text.status().code() == StatusCode::kNotFound) return std::optional<std::vector<ChatMessage>>();
  LS_RETURN_IF_ERROR(text.status());
  LS_ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, FromMetadata(text->metadata));
  return std::optional(std::move(messages));
}

Result<RestoredSession> SavedDialogue::Restore(const Engine& engine) const {
  return store_ != nullptr ? store_->Restore(engine, name_) : RestoreSession(engine, name_);
}

Status SavedDialogue::Save(const Session& session, std::span<const ChatMessage> messages) const {
  const std::string metadata = ToMetadata(messages);
  const auto saved = store_ != nullptr ? store_->Save(session, name_, metadata) : SaveSession(session, name_, metadata);
  return saved.ok() ? Status::Ok() : saved.status().WithContext("the dialogue was not saved");
}

Result<std::optional<ResumedDialogue>> Resume(const SavedDialogue& saved, const Engine& engine,
                                              const std::optional<Policy>& policy) {
  LS_ASSIGN_OR_RETURN(auto messages, saved.ReadMessages());
  if (!messages) return std::optional<ResumedDialogue>();
  ResumedDialogue resumed;
  resumed.messages = std::move(*messages);
  Result<RestoredSession> restored = saved.Restore(engine);
  if (!restored.ok()) {
    resumed.note = restored.status().message() + "; its text is read again";
  } else if (policy && policy->ToString() != restored->session.policy().ToString()) {
    resumed.note = "the stored dialogue's policy is " + restored->session.policy().ToString() +
                   "; its text is read again under " + policy->ToString();
  } else {
    resumed.session = std::move(restored->session);
  }
  return std::optional(std::move(resumed));
}

}  // namespace loopserve
