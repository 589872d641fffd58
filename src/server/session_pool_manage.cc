// What /v1/sessions does with the dialogues: in memory, on disk, or both.
#include <algorithm>
#include <utility>

#include "src/server/session_pool.h"

namespace loopserve::server {
namespace {

Status NotFound(const std::string& id) { return Status(StatusCode::kNotFound, "there is no session '" + id + "'"); }

SessionInfo OnDiskOnly(const StoredDialogue& d) {
  SessionInfo info;
  info.id = d.id;
  info.name = d.name.value;
  info.policy = d.policy;
  info.tokens = std::ssize(*d.tokens);
  info.turns = d.turns;
  info.created_s = d.created_s;
  info.used_s = d.used_s;
  info.pinned = d.pinned;
  info.on_disk = info.saved = true;
  info.disk_bytes = d.file_bytes;
  return info;
}

}  // namespace

std::vector<SessionInfo> SessionPool::List(const std::string& tenant) const {
  std::vector<DialogueStore::Entry> stored;
  const std::string sealed = Sealed({tenant, ""}).tenant;
  if (store_ != nullptr) stored = store_->OfTenant(sealed);
  std::vector<SessionInfo> list;
  const std::lock_guard lock(mutex_);
  for (const auto& d : dialogues_) {
    const auto entry = std::ranges::find_if(stored, [&](const auto& e) { return e != nullptr && e->id == d->id; });
    const DialogueStore::Entry on_disk = entry == stored.end() ? nullptr : std::exchange(*entry, nullptr);
    if (d->name_space.tenant != sealed || d->doomed) continue;
    SessionInfo info{d->id,
                     d->name.value,
                     d->policy,
                     static_cast<int64_t>(d->tokens->size()),
                     d->turns,
                     d->kv_bytes,
                     d->exclusive_kv_bytes,
                     d->created_s,
                     d->used_s,
                     d->busy,
                     d->pinned};
    info.in_memory = d->on_disk_as.empty();
    info.on_disk = on_disk != nullptr;
    if (on_disk != nullptr) {
      info.disk_bytes = on_disk->file_bytes;
      const bool same = on_disk->tokens == d->tokens || *on_disk->tokens == *d->tokens;
      info.saved = !d->busy && on_disk->turns == d->turns && same;
    }
    list.push_back(std::move(info));
  }
  for (const DialogueStore::Entry& entry : stored) {
    if (entry != nullptr) list.push_back(OnDiskOnly(*entry));
  }
  return list;
}

HeldDialogue* SessionPool::Find(const NameSpace& unsalted, const std::string& id) const {
  for (const auto& d : dialogues_) {
    const bool called = d->id == id || (d->name.exclusive && d->name.value == id && d->name_space.salt.empty());
    if (called && d->name_space.tenant == unsalted.tenant && !d->doomed) return d.get();
  }
  return nullptr;
}

DialogueStore::Entry SessionPool::FindOnDisk(const NameSpace& unsalted, const std::string& id) const {
  if (store_ == nullptr) return nullptr;
  DialogueStore::Entry entry = store_->OfId(id);
  if (entry != nullptr && entry->name_space.tenant != unsalted.tenant) entry = nullptr;
  if (entry == nullptr) entry = store_->Named(unsalted, id);
  // What is in memory is found there, under the name that it has now.
  return entry != nullptr && OfId(entry->id) == nullptr ? entry : nullptr;
}

bool SessionPool::IsTaken(const NameSpace& name_space, const std::string& name) const {
  if (Named(name_space, name) != nullptr) return true;
  const DialogueStore::Entry stored = store_ == nullptr ? nullptr : store_->Named(name_space, name);
  return stored != nullptr && OfId(stored->id) == nullptr;  // in memory it may have another name by now
}

Result<SessionPool::OnDisk> SessionPool::Delete(const std::string& tenant, const std::string& id) {
  HeldDialogue* dialogue = Find(Sealed({tenant, ""}), id);
  if (dialogue == nullptr) {
    const DialogueStore::Entry stored = FindOnDisk(Sealed({tenant, ""}), id);
    return stored == nullptr ? Result<OnDisk>(NotFound(id)) : store_->Delete(stored->id);
  }
  const OnDisk deleted = store_ == nullptr ? OnDisk() : store_->Delete(dialogue->id);
  if (!dialogue->busy) {
    Drop(dialogue);
    return deleted;
  }
  const std::lock_guard lock(mutex_);
  dialogue->doomed = true;
  dialogue->name = {};  // a new dialogue may have the name
  return deleted;
}

Result<SessionPool::OnDisk> SessionPool::SetPinned(const std::string& tenant, const std::string& id, bool pinned) {
  HeldDialogue* dialogue = Find(Sealed({tenant, ""}), id);
  if (dialogue == nullptr) {
    const DialogueStore::Entry stored = FindOnDisk(Sealed({tenant, ""}), id);
    return stored == nullptr ? Result<OnDisk>(NotFound(id)) : store_->SetPinned(stored->id, pinned);
  }
  {
    const std::lock_guard lock(mutex_);
    dialogue->pinned = pinned;
  }
  return store_ == nullptr ? OnDisk() : store_->SetPinned(dialogue->id, pinned);
}

Result<SessionPool::OnDisk> SessionPool::Save(const std::string& tenant, const std::string& id) {
  const HeldDialogue* dialogue = Find(Sealed({tenant, ""}), id);
  if (dialogue == nullptr && FindOnDisk(Sealed({tenant, ""}), id) == nullptr) return NotFound(id);
  if (store_ == nullptr)
    return Status(StatusCode::kUnsupported,
                  "this server keeps no sessions on disk; it was started without --sessions-dir");
  if (dialogue == nullptr) return OnDisk();  // it is there
  return SaveNow(*dialogue);
}

Result<SessionPool::Lease> SessionPool::Fork(const std::string& tenant, const std::string& id,
                                             const std::string& name) {
  const HeldDialogue* source = Find(Sealed({tenant, ""}), id);
  const DialogueStore::Entry stored = source == nullptr ? FindOnDisk(Sealed({tenant, ""}), id) : nullptr;
  if (source == nullptr && stored == nullptr) return NotFound(id);
  const NameSpace& name_space = source != nullptr ? source->name_space : stored->name_space;
  if (!name.empty() && IsTaken(name_space, name))
    return Status(StatusCode::kInvalidArgument, "there is a session '" + name + "' already");
  const SessionName fork_name{name, !name.empty()};
  HeldDialogue* fork = source != nullptr ? ForkOf(*source, fork_name) : ForkFromDisk(*stored, fork_name);
  fork->busy = true;
  if (BytesToRead(*fork) > 0 && !MakeRoom(BytesToRead(*fork))) {
    Release(fork, 0);
    return Status(StatusCode::kResourceExhausted, "there is no room in memory for the session");
  }
  return Lease{fork, std::nullopt};
}

size_t SessionPool::size() const {
  const std::lock_guard lock(mutex_);
  return dialogues_.size();
}

}  // namespace loopserve::server
