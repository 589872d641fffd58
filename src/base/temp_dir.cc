#include "src/base/temp_dir.h"

#include <stdlib.h>

#include <string>
#include <utility>

#include "src/base/check.h"
#include "src/base/errno_status.h"
#include "src/base/paths.h"

namespace loopserve {

Result<TempDir> TempDir::In(const std::filesystem::path& parent) {
  LS_RETURN_IF_ERROR(CreateDirs(parent));
  std::string name = (parent / "loopserve.XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr) return ErrnoStatus("cannot create a folder in " + parent.string(), errno);
  return TempDir(std::filesystem::path(name));
}

TempDir::TempDir() {
  Result<TempDir> made = In(std::filesystem::temp_directory_path());
  LS_CHECK(made.ok());
  path_ = std::exchange(made->path_, {});
}

TempDir::TempDir(TempDir&& other) noexcept : path_(std::exchange(other.path_, {})) {}

TempDir::~TempDir() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

}  // namespace loopserve
