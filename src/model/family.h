// The supported model families: how each one's metadata becomes HyperParams. One file a family; a new family is a new
// file and a line in kFamilies.
#pragma once

#include <span>
#include <string_view>

#include "loopserve/status.h"
#include "src/gguf/gguf_file.h"
#include "src/model/hyper_params.h"

namespace loopserve {

struct Family {
  std::string_view name;  ///< general.architecture
  Result<HyperParams> (*read)(const GgufFile& file);
};

/// Reads the parameters of the file's family. kUnsupported names the family and the supported ones.
Result<HyperParams> ReadHyperParams(const GgufFile& file);

/// What the families share: counts, head sizes, norms, context, RoPE with its scaling; range-checked.
Result<HyperParams> ReadCommonHyperParams(const GgufFile& file, int rope_mode);

Result<HyperParams> ReadLlama(const GgufFile& file);
Result<HyperParams> ReadQwen2(const GgufFile& file);
Result<HyperParams> ReadQwen3(const GgufFile& file);
Result<HyperParams> ReadGemma3(const GgufFile& file);

}  // namespace loopserve
