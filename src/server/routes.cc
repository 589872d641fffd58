#include "src/server/routes.h"

#include <memory>

#include "src/server/api_error.h"
#include "src/server/openapi.h"

namespace loopserve::server {

std::vector<Route> AllRoutes(Context& context) {
  std::vector<Route> routes;
  AddStatusRoutes(context, &routes);
  AddChatRoutes(context, &routes);
  AddCompletionRoutes(context, &routes);
  AddResponsesRoutes(context, &routes);
  AddMessagesRoutes(context, &routes);
  AddTokenRoutes(context, &routes);
  AddSessionRoutes(context, &routes);
  routes.push_back({"GET", "/openapi.json", {}, true});
  const auto document = std::make_shared<const Json>(OpenApiDocument(routes));
  routes.back().handler = [document](const HttpRequest&) { return JsonReply(*document); };
  return routes;
}

}  // namespace loopserve::server
