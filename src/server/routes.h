// The routes of the server, one family a file. Each function adds its routes to a list; handlers keep `context`, which
// must outlive them. Thread rule: handlers may be called from any thread.
#pragma once

#include <vector>

#include "src/server/context.h"
#include "src/server/http_types.h"

namespace loopserve::server {

void AddStatusRoutes(Context& context, std::vector<Route>* routes);      ///< health, models, props, metrics, openapi
void AddChatRoutes(Context& context, std::vector<Route>* routes);        ///< /v1/chat/completions
void AddCompletionRoutes(Context& context, std::vector<Route>* routes);  ///< /v1/completions
void AddResponsesRoutes(Context& context, std::vector<Route>* routes);   ///< /v1/responses
void AddMessagesRoutes(Context& context, std::vector<Route>* routes);    ///< /v1/messages
void AddTokenRoutes(Context& context, std::vector<Route>* routes);       ///< tokenize, detokenize, apply-template
void AddSessionRoutes(Context& context, std::vector<Route>* routes);     ///< /v1/sessions

/// All of them.
std::vector<Route> AllRoutes(Context& context);

}  // namespace loopserve::server
