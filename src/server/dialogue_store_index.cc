// What the server knows of the dialogues on disk, and how it learns it when it starts.
#include <utility>

#include "src/server/dialogue_store.h"

namespace loopserve::server {

void DialogueStore::ReadIndex(std::shared_ptr<Engine> engine) {
  engine_ = std::move(engine);
  int n_unreadable = 0;
  const auto list = files_->List(&n_unreadable);
  if (!list.ok()) {
    Note("start", options_.directory, list.status());
    return;
  }
  for (int i = 0; i < n_unreadable && metrics_ != nullptr; ++i) metrics_->CountSnapshotFailure("start");
  for (const StoredSessionInfo& info : *list) ReadOne(info);
  UpdateMetrics();
}

void DialogueStore::ReadOne(const StoredSessionInfo& info) {
  const auto read = [&]() -> Result<StoredDialogue> {
    LS_ASSIGN_OR_RETURN(StoredText text, files_->ReadText(info.id));
    LS_ASSIGN_OR_RETURN(StoredDialogue dialogue, FromStored(std::move(text)));
    LS_RETURN_IF_ERROR(files_->CheckFits(*engine_, info.id));
    LS_RETURN_IF_ERROR(Policy::Parse(dialogue.policy).status());
    if (std::ssize(*dialogue.tokens) > engine_->model().context_tokens)
      return Status(StatusCode::kContextLength, "it is longer than the context");
    return dialogue;
  };
  Result<StoredDialogue> dialogue = read();
  if (!dialogue.ok()) {
    Note("start", info.id, dialogue.status());
    return;
  }
  dialogue->id = info.id;
  dialogue->file_bytes = info.file_bytes;
  dialogue->pinned = info.pinned;
  dialogue->used_s = static_cast<double>(info.last_used_unix_ms) / 1000;
  const std::lock_guard lock(mutex_);
  Known& known = known_[info.id];
  known.on_disk = std::make_shared<const StoredDialogue>(std::move(dialogue).value());
  known.pinned = info.pinned;
  known.last = SaveState::kSaved;
}

DialogueStore::Entry DialogueStore::Named(const NameSpace& name_space, const std::string& name) const {
  const std::lock_guard lock(mutex_);
  Entry newest;  // a name means one dialogue; a crash between two saves may leave it to two
  for (const auto& [id, known] : known_) {
    const Entry& entry = known.on_disk;
    if (entry == nullptr || !entry->name.exclusive || entry->name.value != name || entry->name_space != name_space)
      continue;
    if (newest == nullptr || entry->used_s > newest->used_s) newest = entry;
  }
  return newest;
}

std::vector<DialogueStore::Entry> DialogueStore::Under(const NameSpace& name_space, const std::string& policy) const {
  const std::lock_guard lock(mutex_);
  std::vector<Entry> entries;
  for (const auto& [id, known] : known_) {
    const Entry& entry = known.on_disk;
    if (entry != nullptr && entry->policy == policy && entry->name_space == name_space) entries.push_back(entry);
  }
  return entries;
}

std::vector<DialogueStore::Entry> DialogueStore::OfTenant(const std::string& tenant) const {
  const std::lock_guard lock(mutex_);
  std::vector<Entry> entries;
  for (const auto& [id, known] : known_) {
    if (known.on_disk != nullptr && known.on_disk->name_space.tenant == tenant) entries.push_back(known.on_disk);
  }
  return entries;
}

DialogueStore::Entry DialogueStore::OfId(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto at = known_.find(id);
  return at == known_.end() ? nullptr : at->second.on_disk;
}

}  // namespace loopserve::server
