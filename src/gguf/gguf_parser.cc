#include "src/gguf/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <type_traits>

namespace loopserve {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF files are read without swapping bytes");

// No model comes near these. They keep the memory for descriptions small however large a damaged file is.
constexpr uint64_t kMaxTensors = 1 << 16;
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxKeyBytes = 65535;  // the format's own limit
constexpr uint64_t kMaxAlignment = 1 << 20;

std::string Quoted(std::string_view text) {
  std::string quoted = "'";
  for (const char c : text.substr(0, 80)) quoted += (c >= ' ' && c <= '~') ? c : '?';
  return quoted + (text.size() > 80 ? "...'" : "'");
}

/// A cursor over the file. Every read is checked against the bytes left.
class Reader {
 public:
  explicit Reader(std::span<const uint8_t> file) : file_(file) {}

  size_t position() const { return position_; }
  size_t left() const { return file_.size() - position_; }
  const uint8_t* current() const { return file_.data() + position_; }

  template <typename T>
  bool Read(T* value) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (left() < sizeof(T)) return false;
    std::memcpy(value, current(), sizeof(T));
    position_ += sizeof(T);
    return true;
  }
  bool Skip(uint64_t bytes) {
    if (left() < bytes) return false;
    position_ += static_cast<size_t>(bytes);
    return true;
  }
  bool ReadString(std::string_view* text) {
    uint64_t length = 0;
    if (!Read(&length) || left() < length) return false;
    *text = std::string_view(reinterpret_cast<const char*>(current()), static_cast<size_t>(length));
    return Skip(length);
  }

 private:
  std::span<const uint8_t> file_;
  size_t position_ = 0;
};

Status Corrupt(const Reader& reader, const std::string& what) {
  return Status(StatusCode::kCorruptData, what + " (at byte " + std::to_string(reader.position()) + ")");
}

Status ReadPreamble(Reader* reader, GgufHeader* header, uint64_t* n_tensors, uint64_t* n_keys) {
  char magic[4];
  if (!reader->Read(&magic) || std::memcmp(magic, "GGUF", 4) != 0) {
    return Status(StatusCode::kCorruptData, "not a GGUF file: it does not begin with 'GGUF'");
  }
  if (!reader->Read(&header->version)) return Corrupt(*reader, "the file ends in its header");
  if (header->version != 2 && header->version != 3) {
    const bool swapped = (header->version & 0xffff) == 0 && header->version != 0;
    return Status(StatusCode::kUnsupported, swapped ? "the file was written for big-endian machines"
                                                    : "GGUF version " + std::to_string(header->version) +
                                                          " is not supported; versions 2 and 3 are");
  }
  if (!reader->Read(n_tensors) || !reader->Read(n_keys)) return Corrupt(*reader, "the file ends in its header");
  if (*n_tensors > kMaxTensors) return Corrupt(*reader, std::to_string(*n_tensors) + " tensors are too many");
  if (*n_keys > kMaxKeys) return Corrupt(*reader, std::to_string(*n_keys) + " metadata keys are too many");
  return Status::Ok();
}

Status CheckBools(const Reader& reader, std::string_view key, const GgufValue& value) {
  if (value.element_type != GGUF_TYPE_BOOL) return Status::Ok();
  const bool valid = std::all_of(value.data, value.data + value.size_bytes, [](uint8_t b) { return b <= 1; });
  return valid ? Status::Ok() : Corrupt(reader, "key " + Quoted(key) + " has a bool that is neither 0 nor 1");
}

Status ReadValue(Reader* reader, std::string_view key, GgufValue* value) {
  uint32_t type = 0;
  if (!reader->Read(&type)) return Corrupt(*reader, "the file ends in key " + Quoted(key));
  if (type >= GGUF_TYPE_COUNT) {
    return Corrupt(*reader, "key " + Quoted(key) + " has the unknown type " + std::to_string(type));
  }
  value->type = static_cast<gguf_type>(type);
  value->element_type = value->type;
  if (value->type == GGUF_TYPE_ARRAY) {
    if (!reader->Read(&type) || !reader->Read(&value->count)) {
      return Corrupt(*reader, "the file ends in key " + Quoted(key));
    }
    if (type >= GGUF_TYPE_COUNT || type == GGUF_TYPE_ARRAY) {
      return Corrupt(*reader,
                     "key " + Quoted(key) + " is an array of type " + std::to_string(type) + ", which is not allowed");
    }
    value->element_type = static_cast<gguf_type>(type);
  }
  const std::string too_long = "key " + Quoted(key) + " is longer than what is left of the file";
  value->data = reader->current();
  if (value->element_type == GGUF_TYPE_STRING) {
    std::string_view text;
    if (value->count > reader->left() / sizeof(uint64_t)) return Corrupt(*reader, too_long);
    for (uint64_t i = 0; i < value->count; ++i) {
      if (!reader->ReadString(&text)) return Corrupt(*reader, too_long);
    }
    if (value->type == GGUF_TYPE_STRING) value->data = reinterpret_cast<const uint8_t*>(text.data());
  } else {
    const size_t element_bytes = GgufElementBytes(value->element_type);
    if (value->count > reader->left() / element_bytes || !reader->Skip(value->count * element_bytes)) {
      return Corrupt(*reader, too_long);
    }
  }
  value->size_bytes = static_cast<size_t>(reader->current() - value->data);
  return CheckBools(*reader, key, *value);
}

Status ReadKeys(Reader* reader, uint64_t n_keys, GgufHeader* header) {
  for (uint64_t i = 0; i < n_keys; ++i) {
    std::string_view key;
    if (!reader->ReadString(&key)) return Corrupt(*reader, "the file ends in metadata key " + std::to_string(i));
    if (key.empty() || key.size() > kMaxKeyBytes || key.find('\0') != std::string_view::npos) {
      return Corrupt(*reader, "metadata key " + std::to_string(i) + " has no valid name");
    }
    GgufValue value;
    LS_RETURN_IF_ERROR(ReadValue(reader, key, &value));
    if (!header->values.emplace(key, value).second) return Corrupt(*reader, "key " + Quoted(key) + " occurs twice");
  }
  return Status::Ok();
}

Result<uint64_t> Alignment(const Reader& reader, const GgufHeader& header) {
  const auto it = header.values.find("general.alignment");
  if (it == header.values.end()) return uint64_t{GGUF_DEFAULT_ALIGNMENT};
  if (it->second.type != GGUF_TYPE_UINT32) return Corrupt(reader, "general.alignment must be a u32");
  uint32_t alignment = 0;
  std::memcpy(&alignment, it->second.data, sizeof(alignment));
  // The format asks for a multiple of 8, which is also what the widest number in a tensor needs.
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > kMaxAlignment) {
    return Corrupt(reader, "general.alignment is " + std::to_string(alignment) +
                               ": it must be a power of two from 8 to " + std::to_string(kMaxAlignment));
  }
  return uint64_t{alignment};
}

Status ReadShape(Reader* reader, GgufTensorInfo* tensor) {
  uint32_t n_dims = 0;
  if (!reader->Read(&n_dims)) return Corrupt(*reader, "the file ends in a tensor's description");
  if (n_dims < 1 || n_dims > GGML_MAX_DIMS) {
    return Corrupt(*reader, "tensor " + Quoted(tensor->name) + " has " + std::to_string(n_dims) + " dimensions");
  }
  tensor->n_dims = static_cast<int>(n_dims);
  int64_t n_elements = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    if (!reader->Read(&tensor->ne[i])) return Corrupt(*reader, "the file ends in a tensor's description");
    if (tensor->ne[i] <= 0 || tensor->ne[i] > std::numeric_limits<int64_t>::max() / n_elements) {
      return Corrupt(
          *reader, "tensor " + Quoted(tensor->name) + " has the impossible dimension " + std::to_string(tensor->ne[i]));
    }
    n_elements *= tensor->ne[i];
  }
  return Status::Ok();
}

Status ReadTypeAndSize(Reader* reader, GgufTensorInfo* tensor) {
  uint32_t type = 0;
  if (!reader->Read(&type)) return Corrupt(*reader, "the file ends in a tensor's description");
  // A block size of zero marks types that ggml once had.
  const int64_t block = type < GGML_TYPE_COUNT ? ggml_blck_size(static_cast<ggml_type>(type)) : 0;
  if (block <= 0) {
    return Corrupt(*reader, "tensor " + Quoted(tensor->name) + " has the unknown type " + std::to_string(type));
  }
  tensor->type = static_cast<ggml_type>(type);
  if (tensor->ne[0] % block != 0) {
    return Corrupt(*reader, "tensor " + Quoted(tensor->name) + " of type " + ggml_type_name(tensor->type) +
                                " has rows of " + std::to_string(tensor->ne[0]) +
                                " elements, not a multiple of its block of " + std::to_string(block));
  }
  const uint64_t n_blocks =
      static_cast<uint64_t>(tensor->ne[0] * tensor->ne[1] * tensor->ne[2] * tensor->ne[3] / block);
  const uint64_t block_bytes = ggml_type_size(tensor->type);
  if (n_blocks > std::numeric_limits<int64_t>::max() / block_bytes) {
    return Corrupt(*reader, "tensor " + Quoted(tensor->name) + " is too large");
  }
  tensor->size_bytes = static_cast<size_t>(n_blocks * block_bytes);
  return Status::Ok();
}

Status ReadTensors(Reader* reader, uint64_t n_tensors, GgufHeader* header) {
  std::set<std::string_view> names;
  for (uint64_t i = 0; i < n_tensors; ++i) {
    GgufTensorInfo tensor;
    if (!reader->ReadString(&tensor.name)) return Corrupt(*reader, "the file ends in tensor " + std::to_string(i));
    if (tensor.name.empty() || tensor.name.size() >= GGML_MAX_NAME ||
        tensor.name.find('\0') != std::string_view::npos) {
      return Corrupt(*reader, "tensor " + std::to_string(i) + " has no valid name");
    }
    if (!names.insert(tensor.name).second) {
      return Corrupt(*reader, "tensor " + Quoted(tensor.name) + " occurs twice");
    }
    LS_RETURN_IF_ERROR(ReadShape(reader, &tensor));
    LS_RETURN_IF_ERROR(ReadTypeAndSize(reader, &tensor));
    if (!reader->Read(&tensor.file_offset)) return Corrupt(*reader, "the file ends in a tensor's description");
    header->tensors.push_back(tensor);
  }
  return Status::Ok();
}

/// Turns offsets within the data section into offsets within the file, and checks that tensors lie in it, apart from
/// each other.
Status PlaceTensors(const Reader& reader, size_t file_bytes, GgufHeader* header) {
  LS_ASSIGN_OR_RETURN(const uint64_t alignment, Alignment(reader, *header));
  const uint64_t data_begin = (reader.position() + alignment - 1) / alignment * alignment;
  const uint64_t data_bytes = file_bytes > data_begin ? file_bytes - data_begin : 0;
  for (GgufTensorInfo& tensor : header->tensors) {
    if (tensor.file_offset % alignment != 0) {
      return Status(StatusCode::kCorruptData,
                    "tensor " + Quoted(tensor.name) + " is not aligned to " + std::to_string(alignment) + " bytes");
    }
    if (tensor.file_offset > data_bytes || tensor.size_bytes > data_bytes - tensor.file_offset) {
      return Status(StatusCode::kCorruptData,
                    "tensor " + Quoted(tensor.name) + " lies beyond the end of the file; was it cut short?");
    }
    tensor.file_offset += data_begin;
  }
  std::vector<const GgufTensorInfo*> by_offset;
  for (const GgufTensorInfo& tensor : header->tensors) by_offset.push_back(&tensor);
  std::sort(by_offset.begin(), by_offset.end(),
            [](const auto* a, const auto* b) { return a->file_offset < b->file_offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    if (by_offset[i - 1]->file_offset + by_offset[i - 1]->size_bytes > by_offset[i]->file_offset) {
      return Status(StatusCode::kCorruptData,
                    "tensors " + Quoted(by_offset[i - 1]->name) + " and " + Quoted(by_offset[i]->name) + " overlap");
    }
  }
  return Status::Ok();
}

}  // namespace

size_t GgufElementBytes(gguf_type type) {
  switch (type) {
    case GGUF_TYPE_UINT8:
    case GGUF_TYPE_INT8:
    case GGUF_TYPE_BOOL:
      return 1;
    case GGUF_TYPE_UINT16:
    case GGUF_TYPE_INT16:
      return 2;
    case GGUF_TYPE_UINT32:
    case GGUF_TYPE_INT32:
    case GGUF_TYPE_FLOAT32:
      return 4;
    case GGUF_TYPE_UINT64:
    case GGUF_TYPE_INT64:
    case GGUF_TYPE_FLOAT64:
      return 8;
    default:
      return 0;
  }
}

Result<GgufHeader> ParseGguf(std::span<const uint8_t> file) {
  Reader reader(file);
  GgufHeader header;
  uint64_t n_tensors = 0, n_keys = 0;
  LS_RETURN_IF_ERROR(ReadPreamble(&reader, &header, &n_tensors, &n_keys));
  LS_RETURN_IF_ERROR(ReadKeys(&reader, n_keys, &header));
  LS_RETURN_IF_ERROR(ReadTensors(&reader, n_tensors, &header));
  LS_RETURN_IF_ERROR(PlaceTensors(reader, file.size(), &header));
  return header;
}

}  // namespace loopserve
