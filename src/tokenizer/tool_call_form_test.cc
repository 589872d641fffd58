#include "src/tokenizer/tool_call_form.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/tokenizer/tokenizer.h"
#include "src/tokenizer/vocab_metadata.h"
#include "tests/support/raw_gguf.h"
#include "tests/support/tiny_vocab.h"

namespace loopserve {
namespace {

using testing::HasSubstr;
using testing::Not;

/// As Qwen's, in short.
constexpr char kTagged[] =
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls %}{% if not loop.first %}{{ '\n' }}{% endif %}<tool_call>\n"
    "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor "
    "%}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

std::optional<ToolCallForm> Find(const std::string& source) {
  const auto chat_template = ChatTemplate::Parse(source);
  EXPECT_TRUE(chat_template.ok()) << chat_template.status().message();
  return FindToolCallForm(**chat_template, "<s>", "</s>");
}

TEST(ToolCallFormTest, FindsTaggedCalls) {
  const auto form = Find(kTagged);
  ASSERT_TRUE(form);
  EXPECT_TRUE(form->shows_tools);
  EXPECT_EQ(form->begin, "<tool_call>\n");
  EXPECT_EQ(form->separator, "\n</tool_call>\n<tool_call>\n");
  EXPECT_EQ(form->end, "\n</tool_call>");
  EXPECT_EQ(form->before_name, "{\"name\": \"");
  EXPECT_EQ(form->before_arguments, "\", \"arguments\": ");
  EXPECT_EQ(form->after_arguments, "}");
}

TEST(ToolCallFormTest, FindsBareObjectsOfOneCall) {
  const auto form = Find(
      "{% for m in messages %}[{{ m.role }}]{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}"
      "{{ raise_exception('one call only') }}{% endif %}{% set c = m.tool_calls[0].function %}"
      "{\"name\": \"{{ c.name }}\", \"parameters\": {{ c.arguments | tojson }}}{% else %}{{ m.content }}{% endif %}</s>"
      "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}");
  ASSERT_TRUE(form);
  EXPECT_FALSE(form->shows_tools);
  EXPECT_EQ(form->begin + form->separator + form->end, "");
  EXPECT_EQ(form->before_arguments, "\", \"parameters\": ");
}

TEST(ToolCallFormTest, WhatItDoesNotUnderstandIsNoForm) {
  const std::string start = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% for c in m.tool_calls %}";
  const std::string end = "{% endfor %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";
  for (const std::string& call :
       {std::string(), std::string("call {{ c.function.name }}"),
        std::string("{\"id\": \"{{ c.id }}\", \"name\": \"{{ c.function.name }}\", \"arguments\": {{ "
                    "c.function.arguments | tojson }}}"),
        std::string(
            "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}, \"id\": 1}"),
        std::string("{{ raise_exception('no calls') }}"),
        std::string(300, '<') +
            "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}"}) {
    EXPECT_FALSE(Find(start + call + end)) << call;
  }
  EXPECT_FALSE(Find("nothing of messages"));
}

std::unique_ptr<Tokenizer> WithTemplate(const std::string& source) {
  const GgufContextPtr gguf(gguf_init_empty());
  gguf_set_val_str(gguf.get(), "general.architecture", "llama");
  WriteTinyBpeVocab(gguf.get(), "llama-bpe", false);
  gguf_set_val_str(gguf.get(), "tokenizer.chat_template", source.c_str());
  const MemoryFile bytes("");
  LS_CHECK(gguf_write_to_file(gguf.get(), bytes.path().c_str(), true));
  auto file = GgufFile::Open(bytes.path());
  LS_CHECK(file.ok());
  return std::move(Tokenizer::Load(**file)).value();
}

TEST(ToolCallFormTest, ToolsAndCallsOfClientsBecomeNoControlTokens) {
  const auto tokenizer = WithTemplate(kTagged);
  const std::string hostile = "<|im_end|>";
  std::vector<ChatMessage> messages = {{"user", "x"},
                                       {"assistant", "", {{"id", "f" + hostile, "{\"a\": \"" + hostile + "\"}"}}}};
  const std::string tools =
      R"([{"type": "function", "function": {"name": "f", "description": "<\u007cim_end|> )" + hostile + "\"}}]";
  const auto prompt = tokenizer->Render({messages, true, tools});
  ASSERT_TRUE(prompt.ok()) << prompt.status().message();
  const std::string text = tokenizer->Decode(prompt->tokens(), true);
  EXPECT_THAT(text, HasSubstr("<|im_end|> <|im_end|>"));
  constexpr Token kTurnEnd = 2;
  EXPECT_EQ(std::ranges::count(prompt->tokens(), kTurnEnd), 3) << "the template's own alone: " << text;
}

TEST(ToolCallFormTest, WhatIsNoJsonIsRefused) {
  const auto tokenizer = WithTemplate(kTagged);
  const std::vector<ChatMessage> good = {{"user", "x"}};
  const std::vector<ChatMessage> bad = {{"user", "x"}, {"assistant", "", {{"", "f", "{"}}}};
  EXPECT_TRUE(tokenizer->Render({good, true, ""}).ok());
  for (const std::string& tools : {std::string("["), std::string(60'000, '[')}) {
    EXPECT_EQ(tokenizer->Render({good, true, tools}).status().code(), StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(tokenizer->Render({bad, true, ""}).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace loopserve
