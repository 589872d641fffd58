#include "src/server/dialogue_store.h"

#include <algorithm>
#include <utility>

#include "src/base/clock.h"
#include "src/base/format.h"
#include "src/base/log.h"

namespace loopserve::server {
namespace {

std::shared_future<Status> Ready(Status status) {
  std::promise<Status> promise;
  promise.set_value(std::move(status));
  return promise.get_future().share();
}

Status NotHere(const std::string& id) {
  return Status(StatusCode::kNotFound, "there is no session '" + id + "' on disk");
}

}  // namespace

Result<std::unique_ptr<DialogueStore>> DialogueStore::Open(const StoreOptions& options, Metrics* metrics) {
  LS_ASSIGN_OR_RETURN(std::unique_ptr<SessionStore> files,
                      SessionStore::Open({options.directory, options.budget_bytes, /*alone=*/true}));
  return std::unique_ptr<DialogueStore>(new DialogueStore(std::move(files), options, metrics));
}

DialogueStore::~DialogueStore() = default;

std::shared_future<Status> DialogueStore::Save(StoredDialogue dialogue, Session session) {
  const std::string id = dialogue.id;
  std::shared_future<Status> result;
  {
    const std::lock_guard lock(mutex_);
    Known& known = known_[id];
    if (known.doomed) return Ready(NotHere(id));
    known.pinned = dialogue.pinned;
    if (known.waiting != nullptr) {
      known.waiting->dialogue = std::move(dialogue);
      known.waiting->session = std::move(session);
      return known.waiting->result;
    }
    known.waiting.reset(new SaveJob{std::move(dialogue), std::move(session), {}});
    result = known.waiting->result;
  }
  writer_.Do([this, id] { WriteOne(id); });
  return result;
}

void DialogueStore::WriteOne(const std::string& id) {
  std::unique_ptr<SaveJob> job;
  {
    const std::lock_guard lock(mutex_);
    const auto at = known_.find(id);
    if (at == known_.end() || at->second.waiting == nullptr) return;  // deleted meanwhile
    job = std::move(at->second.waiting);
    at->second.writing = true;
  }
  const Result<SaveStats> stats = Write(*job);
  if (!stats.ok()) Note("save", id, stats.status());
  std::promise<Status> done = std::move(job->done);
  TakeNote(id, *job, stats);
  job.reset();  // what it holds of the KV is free before anybody is told
  UpdateMetrics();
  {
    const std::lock_guard lock(mutex_);
    if (const auto at = known_.find(id); at != known_.end()) at->second.writing = false;
  }
  written_.notify_all();
  done.set_value(stats.status());
}

Result<SaveStats> DialogueStore::Write(const SaveJob& job) {
  const StoredDialogue& dialogue = job.dialogue;
  LS_ASSIGN_OR_RETURN(SaveStats stats, files_->Save(job.session, dialogue.id, ToMetadata(dialogue)));
  const Entry before = OfId(dialogue.id);
  // A file keeps its pin; a new one has none.
  if (dialogue.pinned || (before != nullptr && before->pinned))
    LS_RETURN_IF_ERROR(files_->SetPinned(dialogue.id, dialogue.pinned));
  if (metrics_ != nullptr) metrics_->CountSnapshotWrite(stats);
  return stats;
}

void DialogueStore::TakeNote(const std::string& id, const SaveJob& job, const Result<SaveStats>& stats) {
  const std::lock_guard lock(mutex_);
  Known& known = known_[id];
  if (known.doomed) return;  // its file is the next to be deleted
  known.last = stats.ok() ? SaveState::kSaved : SaveState::kFailed;
  if (!stats.ok()) return;
  StoredDialogue dialogue = job.dialogue;
  dialogue.file_bytes = stats->file_bytes;
  dialogue.pinned = known.pinned;
  known.on_disk = std::make_shared<const StoredDialogue>(std::move(dialogue));
  for (const std::string& gone : stats->deleted) {
    if (const auto at = known_.find(gone); at != known_.end()) {
      at->second.on_disk = nullptr;
      at->second.last = SaveState::kGaveWay;
    }
  }
}

std::shared_future<Status> DialogueStore::SetPinned(const std::string& id, bool pinned) {
  {
    const std::lock_guard lock(mutex_);
    const auto at = known_.find(id);
    if (at == known_.end()) return Ready(Status::Ok());  // its first save will say it
    Known& known = at->second;
    known.pinned = pinned;
    if (known.waiting != nullptr) known.waiting->dialogue.pinned = pinned;
    if (known.on_disk != nullptr) {
      StoredDialogue changed = *known.on_disk;
      changed.pinned = pinned;
      known.on_disk = std::make_shared<const StoredDialogue>(std::move(changed));
    } else if (!known.writing) {
      return Ready(Status::Ok());
    }
  }
  auto done = std::make_shared<std::promise<Status>>();
  writer_.Do([this, id, pinned, done] {
    Status status = files_->SetPinned(id, pinned);
    if (!status.ok()) Note("pin", id, status);
    done->set_value(std::move(status));
  });
  return done->get_future().share();
}

std::shared_future<Status> DialogueStore::Delete(const std::string& id) {
  std::unique_ptr<SaveJob> given_up;
  {
    const std::lock_guard lock(mutex_);
    const auto at = known_.find(id);
    if (at == known_.end()) return Ready(Status::Ok());
    at->second.doomed = true;
    at->second.on_disk = nullptr;
    given_up = std::move(at->second.waiting);
  }
  if (given_up != nullptr) given_up->done.set_value(NotHere(id));
  auto done = std::make_shared<std::promise<Status>>();
  writer_.Do([this, id, done] {
    Status status = files_->Delete(id);
    if (status.code() == StatusCode::kNotFound) status = Status::Ok();  // it was never written
    if (!status.ok()) Note("delete", id, status);
    {
      const std::lock_guard lock(mutex_);
      known_.erase(id);
    }
    UpdateMetrics();
    done->set_value(std::move(status));
  });
  return done->get_future().share();
}

std::future<Result<Session>> DialogueStore::Restore(const std::string& id) {
  auto done = std::make_shared<std::promise<Result<Session>>>();
  std::future<Result<Session>> result = done->get_future();
  reader_.Do([this, id, done] { done->set_value(Read(id)); });
  return result;
}

Result<Session> DialogueStore::Read(const std::string& id) {
  const auto start = Clock::now();
  const Entry expected = OfId(id);
  if (expected == nullptr) return NotHere(id);
  Result<Session> session = ReadAndCompare(*expected);
  if (session.ok()) {
    if (metrics_ != nullptr) metrics_->CountSnapshotRestore(session->kv_bytes(), MillisecondsSince(start) / 1000);
    return session;
  }
  Note("restore", id, session.status());
  if (session.status().code() == StatusCode::kResourceExhausted) return session;  // another time there may be room
  const std::lock_guard lock(mutex_);
  if (const auto at = known_.find(id); at != known_.end() && at->second.on_disk == expected) {
    at->second.on_disk = nullptr;
    at->second.last = SaveState::kFailed;
  }
  return session;
}

Result<Session> DialogueStore::ReadAndCompare(const StoredDialogue& expected) {
  LS_ASSIGN_OR_RETURN(RestoredSession restored, files_->Restore(*engine_, expected.id));
  // What was promised to a request must be what the file says, whoever wrote it meanwhile.
  LS_ASSIGN_OR_RETURN(const StoredDialogue found, FromStored({"", {}, std::move(restored.metadata)}));
  const bool same = found.name_space == expected.name_space &&
                    restored.session.policy().ToString() == expected.policy &&
                    std::ranges::equal(restored.session.tokens(), *expected.tokens);
  if (!same) return Status(StatusCode::kCorruptData, "the file is not the one that was found when the server started");
  return std::move(restored.session);
}

DialogueStore::SaveState DialogueStore::StateOf(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto at = known_.find(id);
  if (at == known_.end() || at->second.doomed) return SaveState::kNever;
  return IsPending(at->second) ? SaveState::kPending : at->second.last;
}

DialogueStore::SaveState DialogueStore::WaitSaved(const std::string& id, std::chrono::milliseconds timeout) const {
  {
    std::unique_lock lock(mutex_);
    written_.wait_for(lock, timeout, [&] {
      const auto at = known_.find(id);
      return at == known_.end() || !IsPending(at->second);
    });
  }
  return StateOf(id);
}

bool DialogueStore::WaitWritten(std::chrono::milliseconds timeout) const {
  std::unique_lock lock(mutex_);
  return written_.wait_for(
      lock, timeout, [&] { return std::ranges::none_of(known_, [](const auto& k) { return IsPending(k.second); }); });
}

void DialogueStore::UpdateMetrics() {
  if (metrics_ == nullptr) return;
  size_t n = 0;
  {
    const std::lock_guard lock(mutex_);
    n = static_cast<size_t>(std::ranges::count_if(known_, [](const auto& k) { return k.second.on_disk != nullptr; }));
  }
  const auto used = files_->UsedBytes();
  if (used.ok()) metrics_->SetDisk(*used, options_.budget_bytes, n);
}

void DialogueStore::Note(const char* operation, const std::string& id, const Status& status) const {
  Log(LogLevel::kWarning, "session " + OnOneLine(id) + ", " + operation + ": " + status.message());
  if (metrics_ != nullptr) metrics_->CountSnapshotFailure(operation);
}

}  // namespace loopserve::server
