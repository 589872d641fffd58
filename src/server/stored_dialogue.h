// What the server knows of a dialogue on disk without reading its keys and values, and how that is written into its
// file. Thread rule: values, pure functions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/session_store.h"
#include "src/server/job.h"

namespace loopserve::server {

struct StoredDialogue {
  std::string id;        ///< the server's own: names that clients give never become file names
  NameSpace name_space;  ///< sealed
  SessionName name;
  std::string policy;
  std::shared_ptr<const std::vector<Token>> tokens = std::make_shared<std::vector<Token>>();
  int64_t prompt_tokens = 0;  ///< of the last turn
  int64_t turns = 0;
  double created_s = 0, used_s = 0;
  uint64_t file_bytes = 0;
  bool pinned = false;
};

/// As a name space stands in files: digests that are not those by which the server knows API keys and salts, so that
/// nothing in a file helps to find a key that nobody could guess.
NameSpace Sealed(const NameSpace& name_space);

/// A stored session's metadata: JSON (docs/snapshot_format.md). Tokens, policy, id and pin have their own places there.
std::string ToMetadata(const StoredDialogue& dialogue);
/// Reads it back; kUnsupported where the file is not a server's, kCorruptData where it cannot be.
Result<StoredDialogue> FromStored(StoredText text);

}  // namespace loopserve::server
