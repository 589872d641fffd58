// The server's own description, served as /openapi.json. Thread rule: pure function.
#pragma once

#include <vector>

#include "src/server/http_types.h"
#include "src/server/json_reader.h"

namespace loopserve::server {

/// OpenAPI 3.1, of these routes: every status that each may answer with, and what its body may have.
Json OpenApiDocument(const std::vector<Route>& routes);

}  // namespace loopserve::server
