// What every pull takes from its caller or the environment: the model hub's address and token, a checksum.
// Thread rule: reads the environment; do not change it meanwhile.
#pragma once

#include <string>

#include "loopserve/status.h"

namespace loopserve {

/// `given`, else $HF_ENDPOINT, else the hub's own address; without a slash at its end.
std::string HubEndpoint(const std::string& given);
/// `given`, else $HF_TOKEN, else nothing.
std::string HubToken(const std::string& given);
/// A SHA-256 sum in lower case, or nothing for nothing. kInvalidArgument.
Result<std::string> ToSha256Hex(const std::string& given);

}  // namespace loopserve
