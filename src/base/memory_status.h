// Where exceptions end: memory that a standard container does not get becomes a Status. Thread rule: pure functions.
#pragma once

#include <new>
#include <string>

#include "loopserve/status.h"

namespace loopserve {

/// body(), a Status; kResourceExhausted, "not enough memory for WHAT", where it throws std::bad_alloc.
template <class Body>
Status OrOutOfMemory(const char* what, const Body& body) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, std::string("not enough memory for ") + what);
  }
}

}  // namespace loopserve
