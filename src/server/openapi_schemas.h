// The schemas of requests and replies for /openapi.json. Thread rule: pure functions.
#pragma once

#include <string>

#include "src/server/json_reader.h"

namespace loopserve::server {

/// Parts that several schemas refer to, and bodies of requests by their routes ("/v1/sessions/:id/pin").
Json RequestSchemas();
/// Replies by name, "Error" and "MessagesError" among them.
Json ReplySchemas();
/// The name of a route's reply in ReplySchemas; empty where it is text.
std::string ReplySchemaOf(const std::string& method, const std::string& path);

}  // namespace loopserve::server
