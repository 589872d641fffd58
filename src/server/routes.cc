#include "src/server/routes.h"

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
  return routes;
}

}  // namespace loopserve::server
