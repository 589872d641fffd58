#include "src/server/json_schema.h"

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "src/server/schema_parts.h"

namespace loopserve::server {
namespace {

using Writer = GrammarWriter;

constexpr size_t kMaxEnum = 1000;
constexpr size_t kMaxTextBytes = 4096;  // of names and constants
constexpr size_t kMaxOptional = 100;    // properties of one object that may be missing

/// Say nothing about which values are allowed.
constexpr std::string_view kAnnotations[] = {
    "title",    "description", "default",       "examples",    "example",          "$schema",
    "$id",      "$comment",    "$defs",         "definitions", "$anchor",          "deprecated",
    "readOnly", "writeOnly",   "discriminator", "strict",      "contentMediaType", "contentEncoding"};
constexpr std::string_view kObjectWords[] = {"properties", "required", "additionalProperties"};
constexpr std::string_view kArrayWords[] = {"items", "prefixItems", "minItems", "maxItems"};
constexpr std::string_view kStringWords[] = {"pattern", "minLength", "maxLength", "format"};
constexpr std::string_view kTypes[] = {"object", "array", "string", "number", "integer", "boolean", "null"};

bool OneOf(std::string_view word, const auto& words) { return std::ranges::find(words, word) != std::end(words); }

class SchemaReader {
 public:
  SchemaReader(const JsonIn& root, std::string where, Writer& writer, JsonGrammar& json)
      : root_(root), where_(std::move(where)), writer_(writer), json_(json) {}

  Result<int> Read() {
    LS_ASSIGN_OR_RETURN(const int rule, Node(root_, where_));
    // What references lead to is read after all else, so that they may lead around in circles.
    while (!waiting_.empty()) {
      const Reference next = waiting_.front();
      waiting_.pop_front();
      LS_ASSIGN_OR_RETURN(const int target, Node(*next.schema, next.where));
      writer_.Define(next.rule, {{Writer::Rule(target)}});
    }
    return rule;
  }

 private:
  struct Reference {
    int rule;
    const JsonIn* schema;
    std::string where;
  };

  static Status Refused(const std::string& what) { return Status(StatusCode::kUnsupported, what); }
  static Status Invalid(const std::string& what) { return Status(StatusCode::kInvalidArgument, what); }

  Result<int> Node(const JsonIn& schema, const std::string& where) {
    if (++n_nodes_ > kMaxSchemaNodes) {
      return Refused(where_ + " has more than " + std::to_string(kMaxSchemaNodes) + " parts");
    }
    if (schema.is_boolean()) {
      if (!schema.get<bool>()) return Refused(where + " is false: it allows nothing");
      return json_.Value();
    }
    if (!schema.is_object()) return Invalid(where + " must be a JSON schema: an object");
    if (schema.contains("$ref")) return Ref(schema, where);
    for (const char* word : {"anyOf", "oneOf", "allOf"}) {
      if (schema.contains(word)) return Combined(schema, word, where);
    }
    for (const char* word : {"enum", "const"}) {
      if (schema.contains(word)) return Enumeration(schema, word, where);
    }
    LS_ASSIGN_OR_RETURN(const std::vector<std::string> types, TypesOf(schema, where));
    if (types.size() == 1) return OfType(schema, types[0], where);
    std::vector<Writer::Sequence> alternatives;
    for (const std::string& type : types) {
      LS_ASSIGN_OR_RETURN(const int rule, OfType(schema, type, where));
      alternatives.push_back({Writer::Rule(rule)});
    }
    return writer_.Add(std::move(alternatives));
  }

  /// All members are annotations or in one of these lists.
  template <typename... Words>
  Status OnlyWords(const JsonIn& schema, const std::string& where, const Words&... words) const {
    for (const auto& [key, value] : schema.items()) {
      if (OneOf(key, kAnnotations) || (OneOf(key, words) || ...)) continue;
      return Refused(where + "." + key.substr(0, 100) + " is not supported in this place of a schema");
    }
    return Status::Ok();
  }

  Result<std::vector<std::string>> TypesOf(const JsonIn& schema, const std::string& where) const {
    std::vector<std::string> types;
    if (const auto type = schema.find("type"); type != schema.end()) {
      const auto add = [&](const JsonIn& name) {
        if (!name.is_string() || !OneOf(name.get_ref<const std::string&>(), kTypes)) return false;
        types.push_back(name);
        return true;
      };
      bool good = !type->is_array() ? add(*type) : !type->empty() && type->size() <= std::size(kTypes);
      if (type->is_array() && good) good = std::ranges::all_of(*type, add);
      if (!good) return Invalid(where + ".type must be a type of JSON schema, or a list of them");
      return types;
    }
    // Without a type its words tell; an answer of that type is one that the schema allows.
    const auto any = [&](const auto& words) {
      return std::ranges::any_of(words, [&](std::string_view word) { return schema.contains(std::string(word)); });
    };
    if (any(kObjectWords)) return std::vector<std::string>{"object"};
    if (any(kArrayWords)) return std::vector<std::string>{"array"};
    if (any(kStringWords)) return std::vector<std::string>{"string"};
    if (any(kNumberWords)) return std::vector<std::string>{"number"};
    return std::vector<std::string>{"any"};
  }

  Result<int> OfType(const JsonIn& schema, const std::string& type, const std::string& where) {
    constexpr std::string_view kType[] = {"type"};
    LS_RETURN_IF_ERROR(OnlyWords(schema, where, kType, kObjectWords, kArrayWords, kStringWords, kNumberWords));
    if (type == "object") return Object(schema, where);
    if (type == "array") return Array(schema, where);
    if (type == "string") return StringRule(schema, where, writer_, json_);
    if (type == "number") return NumberRule(schema, where, json_);
    if (type == "integer") return IntegerRule(schema, where, json_);
    if (type == "boolean") return writer_.OneOf({"true", "false"});
    if (type == "null") return json_.Constant("null");
    return json_.Value();
  }

  Result<int> Ref(const JsonIn& schema, const std::string& where) {
    constexpr std::string_view kRef[] = {"$ref"};
    LS_RETURN_IF_ERROR(OnlyWords(schema, where, kRef));
    LS_ASSIGN_OR_RETURN(const JsonIn* target, ResolveReference(root_, schema["$ref"], where));
    const auto [at, is_new] = references_.try_emplace(target, 0);
    if (is_new) {
      at->second = writer_.Reserve();
      waiting_.push_back({at->second, target, where_ + "(" + schema["$ref"].get<std::string>().substr(0, 100) + ")"});
    }
    return at->second;
  }

  Result<int> Combined(const JsonIn& schema, const std::string& word, const std::string& where) {
    const std::string_view kWord[] = {word};
    LS_RETURN_IF_ERROR(OnlyWords(schema, where, kWord));
    const JsonIn& parts = schema[word];
    const std::string name = where + "." + word;
    if (!parts.is_array() || parts.empty()) return Invalid(name + " must be a list of at least one schema");
    if (word == "allOf" && parts.size() != 1) return Refused(name + " with more than one schema is not supported");
    if (word == "oneOf") LS_RETURN_IF_ERROR(CheckApart(root_, parts, name));
    std::vector<Writer::Sequence> alternatives;
    for (size_t i = 0; i < parts.size(); ++i) {
      LS_ASSIGN_OR_RETURN(const int rule, Node(parts[i], name + "[" + std::to_string(i) + "]"));
      alternatives.push_back({Writer::Rule(rule)});
    }
    return writer_.Add(std::move(alternatives));
  }

  Result<int> Enumeration(const JsonIn& schema, const std::string& word, const std::string& where) {
    const std::string_view kWord[] = {word, "type"};
    LS_RETURN_IF_ERROR(OnlyWords(schema, where, kWord));
    const std::string name = where + "." + word;
    const JsonIn values = word == "const" ? JsonIn::array({schema[word]}) : schema[word];
    if (!values.is_array() || values.empty()) return Invalid(name + " must be a list of at least one value");
    if (values.size() > kMaxEnum) return Refused(name + " has more than " + std::to_string(kMaxEnum) + " values");
    std::vector<std::string> types;
    if (schema.contains("type")) {
      LS_ASSIGN_OR_RETURN(types, TypesOf(schema, where));
    }
    std::vector<std::string> texts;
    for (const JsonIn& value : values) {
      const auto is = [&](const std::string& type) {
        return (type == "object" && value.is_object()) || (type == "array" && value.is_array()) ||
               (type == "string" && value.is_string()) || (type == "number" && value.is_number()) ||
               (type == "integer" && AsInt(value, INT64_MIN, INT64_MAX)) || (type == "boolean" && value.is_boolean()) ||
               (type == "null" && value.is_null());
      };
      if (!types.empty() && std::ranges::none_of(types, is)) continue;
      texts.push_back(OneLine(value));
      if (texts.back().size() > kMaxTextBytes)
        return Refused(name + " has a value of more than " + std::to_string(kMaxTextBytes) + " bytes");
    }
    if (texts.empty()) return Refused(name + " has no value of the given type");
    return writer_.OneOf(std::move(texts));
  }

  Result<int> Array(const JsonIn& schema, const std::string& where) {
    LS_ASSIGN_OR_RETURN(const CountBounds count, BoundsOf(schema, "minItems", "maxItems", where));
    if (schema.contains("prefixItems")) return Tuple(schema, count, where);
    int item = -1;
    if (const auto items = schema.find("items"); items != schema.end()) {
      if (items->is_array()) return Refused(where + ".items as a list is not supported; say prefixItems");
      LS_ASSIGN_OR_RETURN(item, Node(*items, where + ".items"));
    } else {
      item = json_.Value();
    }
    return json_.ArrayOf(item, count.min, count.max);
  }

  Result<int> Tuple(const JsonIn& schema, const CountBounds& count, const std::string& where) {
    const JsonIn& items = schema["prefixItems"];
    if (!items.is_array() || items.empty())
      return Invalid(where + ".prefixItems must be a list of at least one schema");
    const auto n = static_cast<int>(items.size());
    if (count.min > n || (count.max != Writer::kNoLimit && count.max < n)) {
      return Refused(where + ": lists of other lengths than that of prefixItems are not supported");
    }
    Writer::Sequence sequence = {Writer::Text("[")};
    for (size_t i = 0; i < items.size(); ++i) {
      LS_ASSIGN_OR_RETURN(const int rule, Node(items[i], where + ".prefixItems[" + std::to_string(i) + "]"));
      if (i > 0) sequence.push_back(Writer::Text(", "));
      sequence.push_back(Writer::Rule(rule));
    }
    sequence.push_back(Writer::Text("]"));
    return writer_.Add({std::move(sequence)});
  }

  struct Member {
    int rule;  ///< "name": value
    bool required;
  };

  Result<int> Object(const JsonIn& schema, const std::string& where) {
    std::set<std::string> required;
    if (const auto list = schema.find("required"); list != schema.end()) {
      const bool good =
          list->is_array() && std::ranges::all_of(*list, [](const JsonIn& name) { return name.is_string(); });
      if (!good) return Invalid(where + ".required must be a list of names");
      for (const JsonIn& name : *list) required.insert(name);
    }
    const JsonIn more = schema.contains("additionalProperties") ? schema["additionalProperties"] : JsonIn(true);
    const JsonIn none = JsonIn::object();
    const JsonIn& properties = schema.contains("properties") ? schema["properties"] : none;
    if (!properties.is_object()) return Invalid(where + ".properties must be an object");
    if (properties.empty() && required.empty()) {
      if (more == false) return json_.Constant("{}");
      LS_ASSIGN_OR_RETURN(const int value, Node(more, where + ".additionalProperties"));
      return json_.ObjectOf(value);
    }
    std::vector<Member> members;
    const auto add = [&](const std::string& name, const JsonIn& property, const std::string& at) -> Status {
      if (name.size() > kMaxTextBytes) return Refused(where + " has a property whose name is too long");
      LS_ASSIGN_OR_RETURN(const int value, Node(property, at));
      members.push_back(
          {writer_.Add({{Writer::Text(ToText(Json(name)) + ": "), Writer::Rule(value)}}), required.contains(name)});
      return Status::Ok();
    };
    for (const auto& [name, property] : properties.items()) {
      LS_RETURN_IF_ERROR(add(name, property, where + ".properties." + name.substr(0, 100)));
    }
    for (const std::string& name : required) {
      if (properties.contains(name)) continue;
      if (more == false)
        return Refused(where + ".required has a property that additionalProperties forbids: " + name.substr(0, 100));
      LS_RETURN_IF_ERROR(add(name, more, where + ".additionalProperties"));
    }
    return Members(members, where);
  }

  /// The members in their order, those that are not required or not. A rule for what follows each of them, once before
  /// anything was written and once after, so that commas are where they should be.
  Result<int> Members(const std::vector<Member>& members, const std::string& where) {
    const auto n_optional = std::ranges::count_if(members, [](const Member& m) { return !m.required; });
    if (static_cast<size_t>(n_optional) > kMaxOptional) {
      return Refused(where + " has more than " + std::to_string(kMaxOptional) + " properties that are not required");
    }
    int first = writer_.Add({{Writer::Text("}")}}), later = first;
    for (size_t i = members.size(); i-- > 0;) {
      const Writer::Item member = Writer::Rule(members[i].rule);
      std::vector<Writer::Sequence> as_first = {{member, Writer::Rule(later)}};
      std::vector<Writer::Sequence> as_later = {{Writer::Text(", "), member, Writer::Rule(later)}};
      if (!members[i].required) {
        as_first.push_back({Writer::Rule(first)});
        as_later.push_back({Writer::Rule(later)});
      }
      first = writer_.Add(std::move(as_first));
      later = writer_.Add(std::move(as_later));
    }
    return writer_.Add({{Writer::Text("{"), Writer::Rule(first)}});
  }

  const JsonIn& root_;
  const std::string where_;
  Writer& writer_;
  JsonGrammar& json_;
  size_t n_nodes_ = 0;
  std::map<const JsonIn*, int> references_;
  std::deque<Reference> waiting_;
};

}  // namespace

Result<int> SchemaRule(const JsonIn& schema, const std::string& where, GrammarWriter& writer, JsonGrammar& json) {
  return SchemaReader(schema, where, writer, json).Read();
}

Result<std::string> SchemaGrammar(const JsonIn& schema, const std::string& where) {
  GrammarWriter writer;
  JsonGrammar json(writer);
  LS_ASSIGN_OR_RETURN(const int root, SchemaRule(schema, where, writer, json));
  Result<std::string> gbnf = writer.Write(root);
  return gbnf.ok() ? gbnf : Result<std::string>(gbnf.status().WithContext(where + " cannot be enforced"));
}

Result<std::string> JsonObjectGrammar() {
  GrammarWriter writer;
  JsonGrammar json(writer);
  return writer.Write(json.Object());
}

}  // namespace loopserve::server
