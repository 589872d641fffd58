// A GGUF file, mapped into memory and checked: every count, type, shape, offset and string is validated before anything
// else sees it, because the file may be damaged or hostile. Afterwards tensors point into the mapping.
// Thread rule: immutable after Open. Ownership: the file owns the mapping and the ggml context of tensor descriptions;
// keep it alive as long as any tensor is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/status.h"

struct ggml_tensor;

namespace loopserve {

class MappedFile;

class GgufFile {
 public:
  /// Maps and checks a file. Errors: kNotFound, kIoError, kCorruptData (says what is wrong and where), kUnsupported
  /// (another GGUF version or byte order, one part of a split model), kResourceExhausted.
  static Result<std::unique_ptr<GgufFile>> Open(const std::string& path);
  ~GgufFile();

  const std::string& path() const;
  size_t file_bytes() const;
  /// "general.architecture"; empty if missing.
  std::string Architecture() const;

  // Metadata. Missing key: empty optional. Present with another type or out of range: kCorruptData naming the key.
  Result<std::optional<uint64_t>> FindUint(std::string_view key) const;  ///< any integer type, not negative
  Result<std::optional<double>> FindFloat(std::string_view key) const;   ///< f32 or f64, finite
  Result<std::optional<bool>> FindBool(std::string_view key) const;
  Result<std::optional<std::string>> FindString(std::string_view key) const;
  /// An integer key that is either a scalar or an array with one value per layer (both occur in the wild).
  Result<std::optional<std::vector<uint64_t>>> FindUintOrArray(std::string_view key, size_t n_layers) const;
  /// Array of bools or integers as bools (sliding-window patterns).
  Result<std::optional<std::vector<bool>>> FindBoolArray(std::string_view key) const;

  /// Arrays of exactly the named kind. The string views point into the mapping.
  Result<std::optional<std::vector<std::string_view>>> FindStringArray(std::string_view key) const;
  Result<std::optional<std::vector<int64_t>>> FindIntArray(std::string_view key) const;  ///< any integer type
  Result<std::optional<std::vector<float>>> FindFloatArray(std::string_view key) const;  ///< f32

  // The same for keys that must be there: a missing one is kCorruptData naming it. Range inclusive.
  Result<uint64_t> RequireUint(std::string_view key, uint64_t min, uint64_t max) const;
  Result<double> RequireFloat(std::string_view key) const;

  /// Everything before the first tensor's data.
  std::span<const uint8_t> header_bytes() const;
  /// Calls body with every key that begins with `prefix`, in alphabetical order, and its value's bytes in the file.
  void ForEachKey(std::string_view prefix,
                  const std::function<void(std::string_view key, std::span<const uint8_t> value)>& body) const;

  /// The tensor with this name, or null. Its data points into the mapping; never write to it.
  ggml_tensor* FindTensor(std::string_view name) const;
  const std::vector<ggml_tensor*>& tensors() const;

 private:
  GgufFile();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace loopserve
