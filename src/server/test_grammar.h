// Whether a grammar has a text: libllama's engine without any model.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "src/tokenizer/grammar.h"

namespace loopserve::server {

inline bool HasText(const Result<std::string>& gbnf, const std::string& text) {
  EXPECT_TRUE(gbnf.ok()) << gbnf.status().message();
  if (!gbnf.ok()) return false;
  static const GrammarVocab none;
  auto matcher = GrammarMatcher::Create(none, *gbnf, "");
  EXPECT_TRUE(matcher.ok()) << matcher.status().message() << "\n" << *gbnf;
  return matcher.ok() && (*matcher)->AcceptText(text).ok() && (*matcher)->can_end();
}

}  // namespace loopserve::server
