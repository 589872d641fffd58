#include "src/tokenizer/grammar.h"

#include <gtest/gtest.h>

#include <cmath>

#include "src/tokenizer/tokenizer.h"
#include "src/tokenizer/vocab_metadata.h"
#include "tests/support/raw_gguf.h"
#include "tests/support/tiny_vocab.h"

namespace loopserve {
namespace {

std::unique_ptr<Tokenizer> LoadTiny(bool spm = false) {
  const GgufContextPtr gguf(gguf_init_empty());
  gguf_set_val_str(gguf.get(), "general.architecture", "llama");
  if (spm) {
    WriteTinySpmVocab(gguf.get(), true);
  } else {
    WriteTinyBpeVocab(gguf.get(), "llama-bpe", true);
  }
  const MemoryFile bytes("");
  LS_CHECK(gguf_write_to_file(gguf.get(), bytes.path().c_str(), true));
  auto file = GgufFile::Open(bytes.path());
  LS_CHECK(file.ok());
  auto tokenizer = Tokenizer::Load(**file);
  LS_CHECK(tokenizer.ok());
  return std::move(tokenizer).value();
}

std::unique_ptr<GrammarMatcher> Must(Result<std::unique_ptr<GrammarMatcher>> matcher) {
  EXPECT_TRUE(matcher.ok()) << matcher.status().message();
  return matcher.ok() ? std::move(matcher).value() : nullptr;
}

// The mask of the whole vocabulary says of each token what a look at that token alone says.
TEST(GrammarTest, TheMaskIsTheSameAsALookAtEachToken) {
  for (const bool spm : {false, true}) {
    const auto tokenizer = LoadTiny(spm);
    const auto matcher = Must(tokenizer->NewMatcher(
        "root ::= \"the \" [a-z]+ \" \" (\"world\" | [\\U000020AC] \"!\" | [^a-z]*) \"]\"\n", ""));
    const std::string text = "the wor \xE2\x82\xAC!]";
    for (size_t done = 0;; ++done) {
      std::vector<float> logits(static_cast<size_t>(tokenizer->n_vocab()), 1.0f);
      const size_t n = matcher->Mask(logits);
      size_t allowed = 0;
      for (Token token = 0; token < tokenizer->n_vocab(); ++token) {
        const bool kept = logits[static_cast<size_t>(token)] == 1.0f;
        EXPECT_EQ(kept, matcher->Allows(token)) << spm << " " << done << " '" << tokenizer->Piece(token, true) << "'";
        allowed += kept;
      }
      EXPECT_EQ(n, allowed);
      EXPECT_GE(n, 1u);
      if (done == text.size()) break;
      ASSERT_TRUE(matcher->AcceptText(text.substr(done, 1)).ok()) << done;
    }
    EXPECT_TRUE(matcher->can_end());
    matcher->Reset();
    EXPECT_FALSE(matcher->can_end());
    EXPECT_TRUE(matcher->AcceptText("the ").ok());
  }
}

TEST(GrammarTest, ControlTokensStandForNothingButTheirOwnTexts) {
  const auto tokenizer = LoadTiny();
  constexpr Token kStart = 1, kThink = 3;
  const std::string gbnf = "root ::= (\"<|im_start|>\" | \"<think>\") .*\n";
  EXPECT_FALSE(Must(tokenizer->NewMatcher(gbnf, ""))->Allows(kStart));
  EXPECT_TRUE(Must(tokenizer->NewMatcher(gbnf, ""))->Allows(kThink)) << "no control token";
  const auto matcher = Must(tokenizer->NewMatcher(gbnf, "...<|im_start|>..."));
  EXPECT_TRUE(matcher->Allows(kStart));
  ASSERT_TRUE(matcher->Accept(kStart).ok());
  EXPECT_FALSE(Must(tokenizer->NewMatcher("root ::= .+ \"x\"\n", ""))->Allows(2)) << "nor do ends stand for texts";
}

TEST(GrammarTest, EndsAreAllowedWhereTheTextIsComplete) {
  const auto tokenizer = LoadTiny();
  Token end = 0;
  while (!tokenizer->IsEndOfText(end)) ++end;
  const auto matcher = Must(tokenizer->NewMatcher("root ::= \"a\" \"b\"?\n", ""));
  EXPECT_FALSE(matcher->Allows(end));
  ASSERT_TRUE(matcher->AcceptText("a").ok());
  EXPECT_TRUE(matcher->Allows(end));
  EXPECT_FALSE(matcher->must_end());
  ASSERT_TRUE(matcher->AcceptText("b").ok());
  EXPECT_TRUE(matcher->must_end());
  EXPECT_FALSE(matcher->AcceptText("b").ok());
}

TEST(GrammarTest, BytesThatAreNoTextAreNeverAllowed) {
  const GrammarVocab none;
  for (const char* bad : {"\xC3(", "\xFF", "\xED\xA0\x80", "\xC0\x80", "\xF5\x80\x80\x80", "\xE0\x80\x80"}) {
    EXPECT_FALSE(Must(GrammarMatcher::Create(none, "root ::= .*\n", ""))->AcceptText(bad).ok()) << bad;
  }
  const auto matcher = Must(GrammarMatcher::Create(none, "root ::= .*\n", ""));
  for (const char* part : {"\xE2", "\x82", "\xAC"}) {
    EXPECT_TRUE(matcher->AcceptText(part).ok());
    EXPECT_EQ(matcher->can_end(), *part == '\xAC');
  }
}

TEST(GrammarTest, WhatIsNoGrammarOrTooMuchIsRefused) {
  const GrammarVocab none;
  for (const std::string& bad :
       {std::string(), std::string("x ::= \"a\"\n"), std::string("root ::= ("), std::string("root ::= root \"a\"\n"),
        std::string("root ::= a\n"), std::string((1 << 20) + 1, ' ')}) {
    EXPECT_FALSE(GrammarMatcher::Create(none, bad, "").ok()) << bad.substr(0, 40);
  }
  // Each 'a' may be of any of many groups.
  const auto matcher = Must(GrammarMatcher::Create(none, "root ::= (\"a\"{1,60} \"b\"?){1,30}\n", ""));
  Status status = Status::Ok();
  for (int i = 0; i < 100 && status.ok(); ++i) status = matcher->AcceptText("a");
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
}

}  // namespace
}  // namespace loopserve
