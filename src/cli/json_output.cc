#include "src/cli/json_output.h"

#include <unistd.h>

#include "src/base/atomic_file.h"

namespace loopserve {

std::string ToJsonText(const Json& document) {
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Status WriteJson(const std::string& path, const Json& document) {
  const std::string text = ToJsonText(document);
  if (path == "-") return WriteAll(STDOUT_FILENO, text, "stdout");
  return WriteFileAtomically(path, text);
}

Status CheckJsonPath(const std::string& path) {
  if (path == "-") return Status::Ok();
  return AtomicFile::Create(path).status();
}

}  // namespace loopserve
