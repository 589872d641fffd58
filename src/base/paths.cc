#include "src/base/paths.h"

#include <cstdlib>

#include "src/base/errno_status.h"

namespace loopserve {
namespace {

std::filesystem::path FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::filesystem::path() : std::filesystem::path(value);
}

}  // namespace

Result<std::filesystem::path> CacheDir() {
  if (const auto own = FromEnvironment("LOOPSERVE_CACHE"); !own.empty()) {
    std::error_code error;
    auto absolute = std::filesystem::absolute(own, error);
    if (error) return ErrnoStatus("cannot resolve LOOPSERVE_CACHE=" + own.string(), error.value());
    return absolute.lexically_normal();
  }
  if (const auto xdg = FromEnvironment("XDG_CACHE_HOME"); xdg.is_absolute()) return xdg / "loopserve";
  if (const auto home = FromEnvironment("HOME"); !home.empty()) return home / ".cache" / "loopserve";
  return Status(StatusCode::kNotFound, "no cache folder: set LOOPSERVE_CACHE, XDG_CACHE_HOME or HOME");
}

Status CreateDirs(const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  // A missing parent cannot be the user's reading of this: kNotFound would point at the wrong thing.
  if (error) {
    Status status = ErrnoStatus("cannot create the folder " + dir.string(), error.value());
    return status.code() == StatusCode::kNotFound ? Status(StatusCode::kIoError, status.message()) : status;
  }
  return Status::Ok();
}

}  // namespace loopserve
