// Tools that a request offers to the model: what of them goes into the prompt, and which form that gives the answer.
// Thread rule: pure functions.
#pragma once

#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "src/server/json_reader.h"

namespace loopserve::server {

inline constexpr size_t kMaxTools = 128;

struct Tool {
  std::string name;
  std::string description;
  JsonIn parameters;           ///< a JSON schema
  std::string schema_name;     ///< where it stands, for errors
  bool any_arguments = false;  ///< arguments may be any object
};

enum class ToolChoice { kNone, kAuto, kRequired };

struct ToolRequest {
  std::vector<Tool> tools;  ///< those that may be called
  ToolChoice choice = ToolChoice::kNone;
  bool one_call = false;  ///< no more than one
  bool empty() const { return choice == ToolChoice::kNone; }
};

/// body.tools, tool_choice and parallel_tool_calls in the form of OpenAI's chat, of its responses, and of Anthropic's
/// messages. kInvalidArgument, kUnsupported.
Result<ToolRequest> ParseChatTools(const JsonIn& body);
Result<ToolRequest> ParseResponsesTools(const JsonIn& body);
Result<ToolRequest> ParseMessagesTools(const JsonIn& body);

/// How this model writes calls: as its template does, else as many models do.
ToolCallForm CallFormOf(const Engine& engine);

/// Makes the messages what the template can show: where it has no place for tools or calls they become text. Returns
/// the tools for ChatInput, empty where the template does not show them.
std::string PlaceTools(const Engine& engine, const ToolRequest& request, std::vector<ChatMessage>* messages);

/// The form of an answer that may (or must) call tools, and be JSON of a schema where it does not; schema: null or a
/// JSON schema, any_object: any JSON object. An empty grammar where any text will do.
struct WantedForm {
  const ToolRequest* tools = nullptr;
  const JsonIn* schema = nullptr;
  std::string schema_name;
  bool any_object = false;
};
Result<AnswerForm> FormOf(const Engine& engine, const WantedForm& wanted);

/// body's response_format, or the same in text.format of responses. Sets the last three of *wanted.
Status ParseResponseFormat(const JsonIn& body, WantedForm* wanted);
Status ParseTextFormat(const JsonIn& body, WantedForm* wanted);

}  // namespace loopserve::server
