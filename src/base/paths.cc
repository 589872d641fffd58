#include "src/base/paths.h"

#include <cstdlib>
#include <string>

#include "src/base/errno_status.h"

namespace loopserve {
namespace {

std::filesystem::path FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::filesystem::path() : std::filesystem::path(value);
}

Result<std::filesystem::path> FindDir(const char* own_name, const char* xdg_name, const char* below_home,
                                      const std::string& missing) {
  if (const auto own = FromEnvironment(own_name); !own.empty()) {
    std::error_code error;
    auto absolute = std::filesystem::absolute(own, error);
    if (error) return ErrnoStatus("cannot resolve " + std::string(own_name) + "=" + own.string(), error.value());
    return absolute.lexically_normal();
  }
  if (const auto xdg = FromEnvironment(xdg_name); xdg.is_absolute()) return xdg / "loopserve";
  if (const auto home = FromEnvironment("HOME"); !home.empty()) return home / below_home / "loopserve";
  return Status(StatusCode::kNotFound, missing + ": set " + own_name + ", " + xdg_name + " or HOME");
}

}  // namespace

Result<std::filesystem::path> CacheDir() {
  return FindDir("LOOPSERVE_CACHE", "XDG_CACHE_HOME", ".cache", "no cache folder");
}

Result<std::filesystem::path> StateDir() {
  return FindDir("LOOPSERVE_STATE", "XDG_STATE_HOME", ".local/state", "no folder for stored sessions");
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
