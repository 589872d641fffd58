// Where loopserve keeps what it downloads. Thread rule: reads the environment; do not change it meanwhile.
#pragma once

#include <filesystem>

#include "loopserve/status.h"

namespace loopserve {

/// The cache folder: $LOOPSERVE_CACHE, else $XDG_CACHE_HOME/loopserve, else $HOME/.cache/loopserve. Relative values of
/// XDG_CACHE_HOME are ignored, as its specification asks. Not created. kNotFound when none of the three is set.
Result<std::filesystem::path> CacheDir();

/// Where loopserve keeps what should outlive a restart: $LOOPSERVE_STATE, else $XDG_STATE_HOME/loopserve, else
/// $HOME/.local/state/loopserve. As CacheDir otherwise.
Result<std::filesystem::path> StateDir();

/// Creates `dir` and its parents. kIoError or kResourceExhausted names the folder.
Status CreateDirs(const std::filesystem::path& dir);

}  // namespace loopserve
