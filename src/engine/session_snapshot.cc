#include "src/engine/session_snapshot.h"

#include <cstring>
#include <new>
#include <utility>

#include "src/base/clock.h"

namespace loopserve {
namespace {

constexpr size_t kMaxMetadataBytes = size_t{64} << 20;

std::span<const std::byte> BytesOf(std::string_view text) { return std::as_bytes(std::span(text)); }

Result<std::vector<Token>> ReadTokens(const SnapshotReader& reader) {
  LS_ASSIGN_OR_RETURN(const Region region, reader.Find(RegionKind::kTokens));
  LS_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, reader.ReadBytes(region));
  const uint64_t n = reader.header().n_tokens;
  if (bytes.size() % sizeof(Token) != 0 || bytes.size() / sizeof(Token) != n)
    return Status(StatusCode::kCorruptData, "the stored dialogue has another number of tokens than it says");
  std::vector<Token> tokens(static_cast<size_t>(n));
  if (n > 0) std::memcpy(tokens.data(), bytes.data(), bytes.size());
  return tokens;
}

Result<std::vector<float>> ReadLogits(const SnapshotReader& reader, int n_vocab) {
  LS_ASSIGN_OR_RETURN(const Region region, reader.Find(RegionKind::kLogits));
  LS_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, reader.ReadBytes(region));
  if (!bytes.empty() && bytes.size() != static_cast<size_t>(n_vocab) * sizeof(float))
    return Status(StatusCode::kCorruptData, "the stored logits are not those of such a vocabulary");
  std::vector<float> logits(bytes.size() / sizeof(float));
  if (!bytes.empty()) std::memcpy(logits.data(), bytes.data(), bytes.size());
  return logits;
}

/// A file has no place for what an eviction policy kept, nor for a session that waits to be forked under other
/// policies.
Status CheckStorable(const SessionImpl& session) {
  LS_RETURN_IF_ERROR(session.CheckIdle());
  const Policy& policy = session.policy();
  const bool is_for_itself =
      Policy::Parse(policy.ToString()).ok() && session.dialogue().queries.n_positions() == NotedQueries(policy);
  if (policy.eviction().method != EvictionSettings::Method::kNone || !is_for_itself) {
    return Status(StatusCode::kUnsupported, "a session under the policy " + policy.ToString() + " cannot be stored");
  }
  if (std::ssize(session.tokens()) != session.cache().n_tokens())
    return Status(StatusCode::kInvalidArgument, "the session is reading a prompt");
  return Status::Ok();
}

}  // namespace

Status DescribeSession(const SessionImpl& session, std::string_view metadata, SnapshotRegions* regions,
                       SnapshotContent* content) {
  if (metadata.size() > kMaxMetadataBytes) {
    return Status(StatusCode::kInvalidArgument,
                  "a stored session's metadata may have 64 MiB, not " + std::to_string(metadata.size()) + " bytes");
  }
  LS_RETURN_IF_ERROR(CheckStorable(session));
  const EngineImpl& engine = session.engine();
  content->key = engine.snapshot_key();
  content->engine_version = LOOPSERVE_VERSION;
  content->model_name = engine.info().description;
  content->cache = &session.cache();
  regions->Add(RegionKind::kMetadata, BytesOf(metadata));
  regions->Add(RegionKind::kPolicy, BytesOf(session.policy().ToString()));
  regions->Add(RegionKind::kTokens, std::as_bytes(session.tokens()));
  regions->Add(RegionKind::kLogits, std::as_bytes(session.logits()));
  AddDialogueRegions(session.dialogue(), engine.params(), regions);
  content->regions = std::move(regions->sources());
  return Status::Ok();
}

Result<StoredText> ReadStoredText(const SnapshotReader& reader) {
  StoredText text;
  LS_ASSIGN_OR_RETURN(text.policy, reader.ReadText(RegionKind::kPolicy));
  LS_ASSIGN_OR_RETURN(text.metadata, reader.ReadText(RegionKind::kMetadata));
  LS_ASSIGN_OR_RETURN(text.tokens, ReadTokens(reader));
  return text;
}

Status CheckKey(const EngineImpl& engine, const SnapshotReader& reader) {
  const auto mismatch = KeyMismatch(reader.header().key, engine.snapshot_key());
  if (!mismatch) return Status::Ok();
  return Status(StatusCode::kUnsupported,
                "the stored session (" + reader.header().model_name + ") cannot go on here: " + *mismatch);
}

Result<RestoredSession> ReadSession(const std::shared_ptr<EngineImpl>& engine, const SnapshotReader& reader) {
  const auto start = Clock::now();
  LS_RETURN_IF_ERROR(CheckKey(*engine, reader));
  LS_ASSIGN_OR_RETURN(StoredText text, ReadStoredText(reader));
  Result<Policy> policy = Policy::Parse(text.policy);
  if (!policy.ok())
    return Status(StatusCode::kUnsupported, "the stored session's policy: " + policy.status().message());
  auto session = std::make_unique<SessionImpl>(engine, *policy);
  LS_ASSIGN_OR_RETURN(std::vector<float> logits, ReadLogits(reader, engine->info().n_vocab));
  LS_RETURN_IF_ERROR(session->Fill(reader, std::move(text.tokens), std::move(logits)));
  return RestoredSession{Session(std::move(session)), std::move(text.metadata), MillisecondsSince(start)};
}

}  // namespace loopserve
