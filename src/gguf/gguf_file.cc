#include "src/gguf/gguf_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "ggml.h"
#include "src/base/mapped_file.h"
#include "src/gguf/ggml_log.h"
#include "src/gguf/gguf_parser.h"

namespace loopserve {
namespace {

struct GgmlContextDeleter {
  void operator()(ggml_context* context) const { ggml_free(context); }
};

Status KeyError(std::string_view key, const std::string& what) {
  return Status(StatusCode::kCorruptData, std::string(key) + " " + what);
}

Status WrongType(std::string_view key, const GgufValue& value, const char* wanted) {
  std::string actual = gguf_type_name(value.type);
  if (value.type == GGUF_TYPE_ARRAY) actual += std::string("[") + gguf_type_name(value.element_type) + "]";
  return KeyError(key, std::string("must be ") + wanted + ", but it is of type " + actual);
}

template <typename T>
T LoadAs(const uint8_t* data) {
  T value;
  std::memcpy(&value, data, sizeof(value));
  return value;
}

/// The integer at `data`. Empty where the type is no integer, or the number does not fit.
std::optional<int64_t> LoadInt(gguf_type type, const uint8_t* data) {
  switch (type) {
    case GGUF_TYPE_UINT8:
      return *data;
    case GGUF_TYPE_INT8:
      return LoadAs<int8_t>(data);
    case GGUF_TYPE_UINT16:
      return LoadAs<uint16_t>(data);
    case GGUF_TYPE_INT16:
      return LoadAs<int16_t>(data);
    case GGUF_TYPE_UINT32:
      return LoadAs<uint32_t>(data);
    case GGUF_TYPE_INT32:
      return LoadAs<int32_t>(data);
    case GGUF_TYPE_UINT64: {
      const uint64_t value = LoadAs<uint64_t>(data);
      if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    case GGUF_TYPE_INT64:
      return LoadAs<int64_t>(data);
    default:
      return std::nullopt;
  }
}

std::string_view StringOf(const GgufValue& value) {
  return {reinterpret_cast<const char*>(value.data), value.size_bytes};
}

}  // namespace

struct GgufFile::State {
  std::string path;
  std::unique_ptr<MappedFile> mapping;
  GgufHeader header;
  std::unique_ptr<ggml_context, GgmlContextDeleter> context;
  std::vector<ggml_tensor*> tensors;
  std::map<std::string_view, ggml_tensor*> by_name;

  const GgufValue* Find(std::string_view key) const {
    const auto it = header.values.find(key);
    return it == header.values.end() ? nullptr : &it->second;
  }
  /// Describes the tensors for ggml. The header was checked: nothing here can make ggml assert.
  Status MakeTensors();
};

Status GgufFile::State::MakeTensors() {
  const ggml_init_params params = {/*.mem_size=*/(header.tensors.size() + 1) * ggml_tensor_overhead(),
                                   /*.mem_buffer=*/nullptr, /*.no_alloc=*/true};
  context.reset(ggml_init(params));
  if (!context) return Status(StatusCode::kResourceExhausted, path + ": no memory for the tensors' descriptions");
  for (const GgufTensorInfo& info : header.tensors) {
    ggml_tensor* tensor = ggml_new_tensor(context.get(), info.type, info.n_dims, info.ne.data());
    ggml_set_name(tensor, std::string(info.name).c_str());
    // ggml has no pointer to const data; nothing writes to weights, and the mapping would not let it.
    tensor->data = const_cast<uint8_t*>(mapping->bytes().data() + info.file_offset);
    tensors.push_back(tensor);
    by_name.emplace(info.name, tensor);
  }
  return Status::Ok();
}

GgufFile::GgufFile() : state_(std::make_unique<State>()) {}
GgufFile::~GgufFile() = default;

Result<std::unique_ptr<GgufFile>> GgufFile::Open(const std::string& path) {
  SilenceGgml();
  std::unique_ptr<GgufFile> file(new GgufFile());
  State& state = *file->state_;
  state.path = path;
  LS_ASSIGN_OR_RETURN(state.mapping, MappedFile::Open(path));
  auto header = ParseGguf(state.mapping->bytes());
  if (!header.ok()) return header.status().WithContext(path);
  state.header = std::move(header).value();
  const auto split = file->FindUint("split.count");
  if (!split.ok()) return split.status().WithContext(path);
  if (split->value_or(1) > 1) {
    return Status(StatusCode::kUnsupported, path + ": this is one of " + std::to_string(**split) +
                                                " parts of a split model; join them first (llama-gguf-split --merge)");
  }
  LS_RETURN_IF_ERROR(state.MakeTensors());
  return file;
}

std::span<const uint8_t> GgufFile::header_bytes() const {
  uint64_t end = file_bytes();
  for (const GgufTensorInfo& info : state_->header.tensors) end = std::min(end, info.file_offset);
  return state_->mapping->bytes().first(static_cast<size_t>(end));
}

void GgufFile::ForEachKey(std::string_view prefix,
                          const std::function<void(std::string_view, std::span<const uint8_t>)>& body) const {
  for (const auto& [key, value] : state_->header.values) {
    if (key.starts_with(prefix)) body(key, {value.data, value.size_bytes});
  }
}

const std::string& GgufFile::path() const { return state_->path; }
size_t GgufFile::file_bytes() const { return state_->mapping->size_bytes(); }
const std::vector<ggml_tensor*>& GgufFile::tensors() const { return state_->tensors; }

std::string GgufFile::Architecture() const {
  const GgufValue* value = state_->Find("general.architecture");
  return value != nullptr && value->type == GGUF_TYPE_STRING ? std::string(StringOf(*value)) : std::string();
}

Result<std::optional<uint64_t>> GgufFile::FindUint(std::string_view key) const {
  const GgufValue* value = state_->Find(key);
  if (value == nullptr) return std::optional<uint64_t>();
  if (value->type == GGUF_TYPE_UINT64) return std::optional<uint64_t>(LoadAs<uint64_t>(value->data));
  const std::optional<int64_t> number = LoadInt(value->type, value->data);
  if (!number) return WrongType(key, *value, "an integer");
  if (*number < 0) return KeyError(key, "is " + std::to_string(*number) + ": it must not be negative");
  return std::optional<uint64_t>(static_cast<uint64_t>(*number));
}

Result<std::optional<double>> GgufFile::FindFloat(std::string_view key) const {
  const GgufValue* value = state_->Find(key);
  if (value == nullptr) return std::optional<double>();
  double number;
  if (value->type == GGUF_TYPE_FLOAT32) {
    number = LoadAs<float>(value->data);
  } else if (value->type == GGUF_TYPE_FLOAT64) {
    number = LoadAs<double>(value->data);
  } else {
    return WrongType(key, *value, "a floating-point number");
  }
  if (!std::isfinite(number)) return KeyError(key, "is not a finite number");
  return std::optional<double>(number);
}

Result<std::optional<bool>> GgufFile::FindBool(std::string_view key) const {
  const GgufValue* value = state_->Find(key);
  if (value == nullptr) return std::optional<bool>();
  if (value->type != GGUF_TYPE_BOOL) return WrongType(key, *value, "a bool");
  return std::optional<bool>(*value->data != 0);
}

Result<std::optional<std::string>> GgufFile::FindString(std::string_view key) const {
  const GgufValue* value = state_->Find(key);
  if (value == nullptr) return std::optional<std::string>();
  if (value->type != GGUF_TYPE_STRING) return WrongType(key, *value, "a string");
  return std::optional<std::string>(StringOf(*value));
}

Result<std::optional<std::vector<uint64_t>>> GgufFile::FindUintOrArray(std::string_view key, size_t n_layers) const {
  using Values = std::vector<uint64_t>;
  const GgufValue* value = state_->Find(key);
  if (value == nullptr) return std::optional<Values>();
  if (value->type != GGUF_TYPE_ARRAY) {
    LS_ASSIGN_OR_RETURN(const std::optional<uint64_t> scalar, FindUint(key));
    return std::optional<Values>(Values(n_layers, *scalar));
  }
  const auto array = FindIntArray(key);
  if (!array.ok()) return array.status();
  const std::vector<int64_t>& numbers = **array;
  if (numbers.size() != n_layers) {
    return KeyError(key,
                    "has " + std::to_string(numbers.size()) + " values for " + std::to_string(n_layers) + " layers");
  }
  Values values;
  for (const int64_t number : numbers) {
    if (number < 0) return KeyError(key, "has the value " + std::to_string(number) + ": it must not be negative");
    values.push_back(static_cast<uint64_t>(number));
  }
  return std::optional<Values>(std::move(values));
}

Result<std::optional<std::vector<bool>>> GgufFile::FindBoolArray(std::string_view key) const {
  const GgufValue* value = state_->Find(key);
  if (value == nullptr) return std::optional<std::vector<bool>>();
  if (value->type == GGUF_TYPE_ARRAY && value->element_type == GGUF_TYPE_BOOL) {
    return std::optional<std::vector<bool>>(std::vector<bool>(value->data, value->data + value->count));
  }
  const auto array = FindIntArray(key);
  if (!array.ok()) return array.status();
  std::vector<bool> values;
  for (const int64_t number : **array) values.push_back(number != 0);
  return std::optional<std::vector<bool>>(std::move(values));
}

Result<std::optional<std::vector<std::string_view>>> GgufFile::FindStringArray(std::string_view key) const {
  const GgufValue* value = state_->Find(key);
  if (value == nullptr) return std::optional<std::vector<std::string_view>>();
  if (value->type != GGUF_TYPE_ARRAY || value->element_type != GGUF_TYPE_STRING) {
    return WrongType(key, *value, "an array of strings");
  }
  std::vector<std::string_view> texts;
  texts.reserve(value->count);
  const uint8_t* next = value->data;
  for (uint64_t i = 0; i < value->count; ++i) {
    const uint64_t length = LoadAs<uint64_t>(next);
    texts.emplace_back(reinterpret_cast<const char*>(next) + sizeof(length), length);
    next += sizeof(length) + length;
  }
  return std::optional<std::vector<std::string_view>>(std::move(texts));
}

Result<std::optional<std::vector<int64_t>>> GgufFile::FindIntArray(std::string_view key) const {
  const GgufValue* value = state_->Find(key);
  if (value == nullptr) return std::optional<std::vector<int64_t>>();
  if (value->type != GGUF_TYPE_ARRAY || value->element_type == GGUF_TYPE_STRING ||
      value->element_type == GGUF_TYPE_BOOL || value->element_type == GGUF_TYPE_FLOAT32 ||
      value->element_type == GGUF_TYPE_FLOAT64) {
    return WrongType(key, *value, "an array of integers");
  }
  const size_t element_bytes = GgufElementBytes(value->element_type);
  std::vector<int64_t> numbers;
  numbers.reserve(value->count);
  for (uint64_t i = 0; i < value->count; ++i) {
    const std::optional<int64_t> number = LoadInt(value->element_type, value->data + i * element_bytes);
    if (!number) return KeyError(key, "has a number that is too large");
    numbers.push_back(*number);
  }
  return std::optional<std::vector<int64_t>>(std::move(numbers));
}

Result<std::optional<std::vector<float>>> GgufFile::FindFloatArray(std::string_view key) const {
  const GgufValue* value = state_->Find(key);
  if (value == nullptr) return std::optional<std::vector<float>>();
  if (value->type != GGUF_TYPE_ARRAY || value->element_type != GGUF_TYPE_FLOAT32) {
    return WrongType(key, *value, "an array of f32");
  }
  std::vector<float> numbers(value->count);
  if (!numbers.empty()) std::memcpy(numbers.data(), value->data, value->size_bytes);
  return std::optional<std::vector<float>>(std::move(numbers));
}

Result<uint64_t> GgufFile::RequireUint(std::string_view key, uint64_t min, uint64_t max) const {
  LS_ASSIGN_OR_RETURN(const std::optional<uint64_t> value, FindUint(key));
  if (!value) return KeyError(key, "is missing");
  if (*value < min || *value > max) {
    return KeyError(key, "is " + std::to_string(*value) + ": it must be from " + std::to_string(min) + " to " +
                             std::to_string(max));
  }
  return *value;
}

Result<double> GgufFile::RequireFloat(std::string_view key) const {
  LS_ASSIGN_OR_RETURN(const std::optional<double> value, FindFloat(key));
  if (!value) return KeyError(key, "is missing");
  return *value;
}

ggml_tensor* GgufFile::FindTensor(std::string_view name) const {
  const auto it = state_->by_name.find(name);
  return it == state_->by_name.end() ? nullptr : it->second;
}

}  // namespace loopserve
