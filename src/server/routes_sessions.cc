// /v1/sessions: the dialogues that the server holds for whoever asks, in memory and on disk.
#include <chrono>
#include <thread>

#include "src/server/api_error.h"
#include "src/server/json_reader.h"
#include "src/server/routes.h"

namespace loopserve::server {
namespace {

constexpr auto kReadPoll = std::chrono::milliseconds(5);
constexpr int kRetryAfterSeconds = 10;  // somebody makes room on the disk

const char* WhereIs(const SessionInfo& info) {
  if (!info.on_disk) return "memory";
  return info.in_memory ? "both" : "disk";
}

Json ToJson(const SessionInfo& info) {
  Json json;
  json["id"] = info.id;
  json["object"] = "session";
  json["name"] = info.name.empty() ? Json(nullptr) : Json(info.name);
  json["policy"] = info.policy;
  json["tokens"] = info.tokens;
  json["turns"] = info.turns;
  json["kv_bytes"] = info.kv_bytes;
  json["exclusive_kv_bytes"] = info.exclusive_kv_bytes;
  json["created"] = static_cast<int64_t>(info.created_s);
  json["last_used"] = static_cast<int64_t>(info.used_s);
  json["busy"] = info.busy;
  json["pinned"] = info.pinned;
  json["where"] = WhereIs(info);
  json["saved"] = info.saved;
  json["disk_bytes"] = info.disk_bytes;
  return json;
}

std::optional<SessionInfo> FindInfo(const Context& context, const std::string& tenant, const std::string& id) {
  for (SessionInfo& info : context.scheduler->pool().List(tenant)) {
    if (info.id == id || (!info.name.empty() && info.name == id)) return std::move(info);
  }
  return std::nullopt;
}

HttpReply List(Context& context, const HttpRequest& http) {
  Json list = Json::array();
  for (const SessionInfo& info : context.scheduler->pool().List(http.tenant)) list.push_back(ToJson(info));
  return JsonReply({{"object", "list"}, {"data", std::move(list)}});
}

HttpReply Show(Context& context, const HttpRequest& http) {
  const std::string& id = http.path_params.at("id");
  const std::optional<SessionInfo> info = FindInfo(context, http.tenant, id);
  if (!info) return ErrorReply(Status(StatusCode::kNotFound, "there is no session '" + id + "'"));
  return JsonReply(ToJson(*info));
}

HttpReply GoingDown() { return ErrorReply(NotReadyError("the server is going down")); }

/// Runs `change` where the dialogues may be changed, waits for what it has to do on disk, and replies with `done`'s
/// JSON where all went well.
HttpReply Change(Context& context, const std::function<Result<SessionPool::OnDisk>(SessionPool&)>& change,
                 const std::function<HttpReply()>& done) {
  Result<SessionPool::OnDisk> changed = SessionPool::OnDisk();
  if (!context.scheduler->OnEngineThread([&](SessionPool& pool) { changed = change(pool); })) return GoingDown();
  if (!changed.ok()) return ErrorReply(changed.status());
  const Status status = changed->valid() ? changed->get() : Status::Ok();
  if (status.ok()) return done();
  if (status.code() == StatusCode::kUnsupported || status.code() == StatusCode::kNotFound) return ErrorReply(status);
  return ErrorReply(ApiError{503, "server_error", "storage_failed", status.message(), kRetryAfterSeconds});
}

HttpReply Delete(Context& context, const HttpRequest& http) {
  const std::string& id = http.path_params.at("id");
  return Change(
      context, [&](SessionPool& pool) { return pool.Delete(http.tenant, id); },
      [&] {
        return JsonReply({{"id", id}, {"object", "session.deleted"}, {"deleted", true}});
      });
}

HttpReply Pin(Context& context, const HttpRequest& http) {
  Result<JsonIn> body = http.body.empty() ? Result<JsonIn>(JsonIn::object()) : ParseBody(http.body);
  if (!body.ok()) return ErrorReply(body.status());
  const auto pinned = Fields(*body).Bool("pinned");
  if (!pinned.ok()) return ErrorReply(pinned.status());
  return Change(
      context,
      [&](SessionPool& pool) { return pool.SetPinned(http.tenant, http.path_params.at("id"), pinned->value_or(true)); },
      [&] { return Show(context, http); });
}

HttpReply Save(Context& context, const HttpRequest& http) {
  return Change(
      context, [&](SessionPool& pool) { return pool.Save(http.tenant, http.path_params.at("id")); },
      [&] { return Show(context, http); });
}

HttpReply Fork(Context& context, const HttpRequest& http) {
  Result<JsonIn> body = http.body.empty() ? Result<JsonIn>(JsonIn::object()) : ParseBody(http.body);
  if (!body.ok()) return ErrorReply(body.status());
  const auto name = Fields(*body).Text("session_id", 256);
  if (!name.ok()) return ErrorReply(name.status());
  Result<SessionPool::Lease> lease = SessionPool::Lease();
  std::string fork_id;
  bool is_there = false;
  const auto begin = [&](SessionPool& pool) {
    lease = pool.Fork(http.tenant, http.path_params.at("id"), name->value_or(""));
    if (lease.ok()) fork_id = lease->dialogue->id;
  };
  const auto go_on = [&](SessionPool& pool) {
    is_there = pool.Prepare(&*lease, std::chrono::milliseconds(0));
    if (!is_there) return;
    pool.Release(lease->dialogue, 0);
    (void)pool.Save(http.tenant, fork_id);  // as after a turn: nobody waits, and it may have nowhere to go
  };
  if (!context.scheduler->OnEngineThread(begin)) return GoingDown();
  if (!lease.ok()) return ErrorReply(lease.status());
  while (!is_there) {  // it is being read from disk
    if (!context.scheduler->OnEngineThread(go_on)) return GoingDown();
    if (!is_there) std::this_thread::sleep_for(kReadPoll);
  }
  const std::optional<SessionInfo> info = FindInfo(context, http.tenant, fork_id);
  return info ? JsonReply(ToJson(*info)) : ErrorReply(Status(StatusCode::kNotFound, "the session could not be read"));
}

}  // namespace

void AddSessionRoutes(Context& context, std::vector<Route>* routes) {
  const auto add = [&](const char* method, const char* path, HttpReply (*serve)(Context&, const HttpRequest&)) {
    routes->push_back({method, path, [&context, serve](const HttpRequest& http) { return serve(context, http); }});
  };
  add("GET", "/v1/sessions", List);
  add("GET", "/v1/sessions/:id", Show);
  add("DELETE", "/v1/sessions/:id", Delete);
  add("POST", "/v1/sessions/:id/pin", Pin);
  add("POST", "/v1/sessions/:id/save", Save);
  add("POST", "/v1/sessions/:id/fork", Fork);
}

}  // namespace loopserve::server
