#include "src/server/stored_dialogue.h"

#include <utility>

#include "src/base/sha256.h"
#include "src/server/json_reader.h"

namespace loopserve::server {
namespace {

constexpr int64_t kMetadataVersion = 1;
constexpr int64_t kMaxCount = int64_t{1} << 53;

std::string Seal(const std::string& what, const std::string& value) {
  return value.empty() ? "" : Sha256Hex("loopserve stored " + what + ": " + value);
}

/// The fields of metadata that is a server's.
Status ReadFields(const JsonIn& json, StoredDialogue* dialogue) {
  const Fields fields(json, "metadata.");
  LS_ASSIGN_OR_RETURN(const auto tenant, fields.Text("tenant"));
  LS_ASSIGN_OR_RETURN(const auto salt, fields.Text("salt"));
  LS_ASSIGN_OR_RETURN(const auto name, fields.Text("name"));
  LS_ASSIGN_OR_RETURN(const auto exclusive, fields.Bool("exclusive"));
  LS_ASSIGN_OR_RETURN(const auto prompt_tokens, fields.Int("prompt_tokens", 0, kMaxCount));
  LS_ASSIGN_OR_RETURN(const auto turns, fields.Int("turns", 0, kMaxCount));
  LS_ASSIGN_OR_RETURN(const auto created, fields.Number("created"));
  dialogue->name_space = {tenant.value_or(""), salt.value_or("")};
  dialogue->name = {name.value_or(""), exclusive.value_or(false)};
  dialogue->prompt_tokens = prompt_tokens.value_or(0);
  dialogue->turns = turns.value_or(0);
  dialogue->created_s = created.value_or(0);
  if (!tenant || !salt) return Status(StatusCode::kCorruptData, "it does not say whose it is");
  return Status::Ok();
}

}  // namespace

NameSpace Sealed(const NameSpace& name_space) {
  return {Seal("tenant", name_space.tenant), Seal("salt", name_space.salt)};
}

std::string ToMetadata(const StoredDialogue& dialogue) {
  Json json;
  json["loopserve_server"] = kMetadataVersion;
  json["tenant"] = dialogue.name_space.tenant;
  json["salt"] = dialogue.name_space.salt;
  json["name"] = dialogue.name.value;
  json["exclusive"] = dialogue.name.exclusive;
  json["prompt_tokens"] = dialogue.prompt_tokens;
  json["turns"] = dialogue.turns;
  json["created"] = dialogue.created_s;
  return ToText(json);
}

Result<StoredDialogue> FromStored(StoredText text) {
  const Result<JsonIn> json = ParseBody(text.metadata);
  if (!json.ok()) return Status(StatusCode::kUnsupported, "it is not a server's dialogue");
  const auto version = Fields(*json).Int("loopserve_server", 0, kMaxCount);
  if (!version.ok() || !*version) return Status(StatusCode::kUnsupported, "it is not a server's dialogue");
  if (**version != kMetadataVersion) {
    return Status(StatusCode::kUnsupported, "its metadata has the version " + std::to_string(**version));
  }
  StoredDialogue dialogue;
  if (const Status status = ReadFields(*json, &dialogue); !status.ok()) {
    return Status(StatusCode::kCorruptData, status.message());
  }
  dialogue.policy = std::move(text.policy);
  dialogue.tokens = std::make_shared<const std::vector<Token>>(std::move(text.tokens));
  return dialogue;
}

}  // namespace loopserve::server
