#include "src/server/tool_call_reader.h"

#include <gtest/gtest.h>

namespace loopserve::server {
namespace {

const ToolCallForm kTagged{true, "<t>\n", "\n</t>\n<t>\n", "\n</t>", "{\"name\": \"", "\", \"arguments\": ", "}"};
const ToolCallForm kBare{true, "", "", "", "{\"name\": \"", "\", \"parameters\": ", "}"};

std::string Told(const std::vector<ToolEvent>& events) {
  std::string told;
  for (const ToolEvent& event : events) {
    told += "TCAE"[static_cast<int>(event.kind)];
    told += (event.call >= 0 ? std::to_string(event.call) : "") + "(" + event.text + ")";
  }
  return told;
}

/// The same however the answer is cut: pieces of one kind are put together again.
void Expect(const ToolCallForm& form, const std::string& answer, const std::string& text, const std::string& calls) {
  for (size_t step = 1; step <= answer.size() + 1; ++step) {
    ToolCallReader reader(form);
    std::string got_text, got_calls;
    for (size_t at = 0; at < answer.size() || at == 0; at += step) {
      for (const ToolEvent& event : reader.Push(answer.substr(at, step), at + step >= answer.size())) {
        if (event.kind == ToolEvent::Kind::kText) got_text += event.text;
        if (event.kind == ToolEvent::Kind::kCall) got_calls += event.text + ":";
        if (event.kind == ToolEvent::Kind::kArguments) got_calls += event.text;
        if (event.kind == ToolEvent::Kind::kCallEnd) got_calls += ";";
      }
    }
    EXPECT_EQ(got_text, text) << step;
    EXPECT_EQ(got_calls, calls) << step;
  }
}

TEST(ToolCallReaderTest, ReadsTextAndCallsHoweverTheyAreCut) {
  Expect(kTagged, "just a text with < and <t", "just a text with < and <t", "");
  Expect(kTagged, "", "", "");
  Expect(kTagged, "I look. <t>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\", \"b\": [{}]}}\n</t>", "I look. ",
         "f:{\"a\": \"}\\\"{\", \"b\": [{}]};");
  Expect(kTagged,
         "<t>\n{\"name\": \"f\", \"arguments\": {}}\n</t>\n<t>\n{\"name\": \"g\", \"arguments\": {\"x\": 1}}\n</t>", "",
         "f:{};g:{\"x\": 1};");
  Expect(kTagged, "<t>\n{\"name\": \"f\", \"arguments\": {\"a\": \"cut", "", "f:{\"a\": \"cut");
  Expect(kBare, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "", "f:{\"a\": 1};");
  Expect(kBare, "Text {\"name\": \"f\", \"parameters\": {}}", "Text {\"name\": \"f\", \"parameters\": {}}", "");
  Expect(kBare, "{\"nam", "{\"nam", "");
}

TEST(ToolCallReaderTest, TextIsHeldBackNoLongerThanItMayBecomeACall) {
  ToolCallReader reader(kTagged);
  EXPECT_EQ(Told(reader.Push("a <", false)), "T(a )");
  EXPECT_EQ(Told(reader.Push("b", false)), "T(<b)");
  EXPECT_EQ(Told(reader.Push("<t>\n{\"name\": \"f\", \"arguments\": {\"", false)), "C0(f)A0({\")");
}

}  // namespace
}  // namespace loopserve::server
