// A session as the content of a snapshot, and back: the engine's part of loopserve/session_store.h.
// Thread rule: as there.
#pragma once

#include <memory>
#include <string_view>

#include "loopserve/session_store.h"
#include "src/engine/session_impl.h"
#include "src/kvcache/snapshot_reader.h"
#include "src/kvcache/snapshot_writer.h"
#include "src/model/dialogue_snapshot.h"

namespace loopserve {

/// What stands behind the public objects.
struct SessionAccess {
  static const SessionImpl& Of(const Session& session) { return *session.impl_; }
  static const std::shared_ptr<EngineImpl>& Of(const Engine& engine) { return engine.impl_; }
};

/// Fills `content` for WriteSnapshot; its regions point into `session`, `metadata` and `regions`, which must stay.
/// kInvalidArgument: the metadata is too long, or a prompt is being read; kUnsupported: the policy.
Status DescribeSession(const SessionImpl& session, std::string_view metadata, SnapshotRegions* regions,
                       SnapshotContent* content);

/// kUnsupported, with the reason, where the file's dialogue cannot go on in this engine.
Status CheckKey(const EngineImpl& engine, const SnapshotReader& reader);
Result<RestoredSession> ReadSession(const std::shared_ptr<EngineImpl>& engine, const SnapshotReader& reader);
Result<StoredText> ReadStoredText(const SnapshotReader& reader);

}  // namespace loopserve
