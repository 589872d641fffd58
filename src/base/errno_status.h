// Turns a failed system call into a Status whose code callers can act on: a full disk is told from a missing file.
// Thread rule: pure function.
#pragma once

#include <cerrno>
#include <string>
#include <system_error>

#include "loopserve/status.h"

namespace loopserve {

/// `what` names the operation and its object, as in "cannot write /x/y"; `error` is the errno of the call.
/// ENOENT becomes kNotFound; no space, quota or file size limit becomes kResourceExhausted; all else kIoError.
inline Status ErrnoStatus(const std::string& what, int error) {
  StatusCode code = StatusCode::kIoError;
  if (error == ENOENT) code = StatusCode::kNotFound;
  if (error == ENOSPC || error == EDQUOT || error == EFBIG || error == ENOMEM) code = StatusCode::kResourceExhausted;
  return Status(code, what + ": " + std::generic_category().message(error));
}

}  // namespace loopserve
