// From what a user calls a model to where it comes from and where it is kept. Thread rule: pure functions.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/status.h"

namespace loopserve {

/// A file inside a Python wheel of a package index.
struct WheelSource {
  std::string package;
  std::string version;
  std::string member;  ///< path of the file inside the wheel
};

struct ModelSource {
  std::string reference;             ///< as the user wrote it
  std::string url;                   ///< empty: it comes from `wheel`
  bool from_hub = false;             ///< the URL is the model hub's: its token and its checksums apply
  WheelSource wheel;                 ///< used when url is empty
  std::filesystem::path cache_path;  ///< relative to <cache>/models; never leaves it
  std::string sha256;                ///< 64 lower-case hex digits, or empty when not known beforehand
};

struct KnownModel {
  std::string name;
  std::string description;
};

/// The names that `loopserve pull` knows, in the order in which to show them.
std::vector<KnownModel> KnownModels();

constexpr char kDefaultHubEndpoint[] = "https://huggingface.co";

/// reference: a known name, hf:OWNER/REPO/FILE.gguf, or an http(s) URL. hub_endpoint: base URL of the hub.
/// kInvalidArgument: a malformed or hostile reference. kNotFound: an unknown name; the message lists the known ones.
Result<ModelSource> ResolveModelSource(std::string_view reference,
                                       const std::string& hub_endpoint = kDefaultHubEndpoint);

/// A file name made from untrusted text: no separators, control characters or leading dots; ends in ".gguf"; at most
/// 150 bytes. Anything else is replaced by '_'.
std::string SafeFileName(std::string_view untrusted);

}  // namespace loopserve
