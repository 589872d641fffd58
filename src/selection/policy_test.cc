#include "loopserve/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

namespace loopserve {
namespace {

using ::testing::HasSubstr;

TEST(PolicyTest, DefaultIsDense) {
  const Policy policy;
  EXPECT_TRUE(policy.is_dense());
  EXPECT_EQ(policy.ToString(), "dense");
}

TEST(PolicyTest, ParsesEveryNameAndItsCanonicalForm) {
  const std::pair<const char*, const char*> kSpecs[] = {
      {"dense", "dense"},
      {"full", "dense"},
      {"loopserve", "loopserve"},
      {"paper", "paper"},
      {"loopserve:budget=2048,alpha=0.9", "loopserve:alpha=0.9,budget=2048"},
      {"minference:slashes=800,columns=100", "minference:columns=100,slashes=800"},
      {"flexprefill:budget=512,tau=0,gamma=0.95,min_budget=512",
       "flexprefill:gamma=0.95,tau=0,min_budget=512,budget=512"},
      {"xattention:block=64,stride=8,threshold=0.8", "xattention:threshold=0.8,stride=8,block=64"},
      {"a_shape:reference=0,local=64,sinks=0", "a_shape:sinks=0,local=64,reference=0"},
      {"tri_shape:min_keys=5,last=7", "tri_shape:last=7,min_keys=5"},
      {"quest:dense_layers=0,budget=512", "quest:budget=512,dense_layers=0"},
      {"snapkv:observe=output,when=every_turn,window=64", "snapkv:window=64,when=every_turn,observe=output"},
      {"pyramidkv:beta=5,pool=3,budget=200", "pyramidkv:budget=200,pool=3,beta=5"},
      {"adakv:alpha=0,when=once", "adakv:alpha=0,when=once"},
      {"h2o", "h2o"},
      {"streaming:sinks=0,budget=2", "streaming:budget=2,sinks=0"},
      {"paper:rows=32,seed=18446744073709551615", "paper:rows=32,seed=18446744073709551615"},
  };
  for (const auto& [spec, canonical] : kSpecs) {
    const Result<Policy> policy = Policy::Parse(spec);
    ASSERT_TRUE(policy.ok()) << policy.status().message();
    EXPECT_EQ(policy.value().ToString(), canonical);
    const Result<Policy> again = Policy::Parse(policy.value().ToString());
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again.value().ToString(), policy.value().ToString());
  }
}

TEST(PolicyTest, KnobsReachTheSettings) {
  const Result<Policy> policy = Policy::Parse(
      "loopserve:alpha=0.5,rows=3,min_keys=7,seed=9,budget=11,decode_min_keys=12,queries=2,"
      "recent=13,per_query_head=1");
  ASSERT_TRUE(policy.ok()) << policy.status().message();
  EXPECT_FALSE(policy->is_dense());
  EXPECT_EQ(policy->prefill().method, PrefillSettings::Method::kTiles);
  EXPECT_EQ(policy->prefill().alpha, 0.5);
  EXPECT_EQ(policy->prefill().sample_rows, 3);
  EXPECT_EQ(policy->prefill().min_keys, 7);
  EXPECT_EQ(policy->prefill().seed, 9u);
  EXPECT_EQ(policy->decode().budget, 11);
  EXPECT_EQ(policy->decode().method, DecodeSettings::Method::kCodedKeys);
  EXPECT_EQ(policy->decode().queries, 2);
  EXPECT_EQ(policy->decode().min_keys, 12);
  EXPECT_EQ(policy->decode().recent, 13);
  EXPECT_TRUE(policy->decode().per_query_head);
}

TEST(PolicyTest, QualitiesAreOrdered) {
  const Result<Policy> fast = Policy::OfQuality("fast");
  const Result<Policy> balanced = Policy::OfQuality("balanced");
  const Result<Policy> faithful = Policy::OfQuality("faithful");
  ASSERT_TRUE(fast.ok() && balanced.ok() && faithful.ok());
  EXPECT_LT(fast->prefill().alpha, balanced->prefill().alpha);
  EXPECT_LT(balanced->prefill().alpha, faithful->prefill().alpha);
  EXPECT_LT(fast->decode().budget, balanced->decode().budget);
  EXPECT_LT(balanced->decode().budget, faithful->decode().budget);
  EXPECT_EQ(balanced->ToString(), "loopserve");
  EXPECT_EQ(Policy::OfQuality("best").status().code(), StatusCode::kInvalidArgument);
}

// The parameters that the paper states (arXiv 2507.13681).
TEST(PolicyTest, PaperIsThePapers) {
  const Result<Policy> policy = Policy::Parse("paper");
  ASSERT_TRUE(policy.ok());
  EXPECT_EQ(policy->prefill().method, PrefillSettings::Method::kLines);
  EXPECT_EQ(policy->prefill().alpha, 0.955);
  EXPECT_EQ(policy->decode().method, DecodeSettings::Method::kWorkingSets);
  EXPECT_EQ(policy->decode().budget, 1024);
  EXPECT_EQ(policy->decode().interval, 16);
  EXPECT_EQ(policy->decode().queries, 16);
}

// The parameters of the published code and papers; decoding is dense unless asked.
TEST(PolicyTest, BaselinesAreAsPublished) {
  const Result<Policy> minference = Policy::Parse("minference");
  const Result<Policy> flexprefill = Policy::Parse("flexprefill");
  const Result<Policy> xattention = Policy::Parse("xattention");
  const Result<Policy> a_shape = Policy::Parse("a_shape");
  const Result<Policy> tri_shape = Policy::Parse("tri_shape");
  ASSERT_TRUE(minference.ok() && flexprefill.ok() && xattention.ok() && a_shape.ok() && tri_shape.ok());
  EXPECT_EQ(minference->prefill().method, PrefillSettings::Method::kMInference);
  EXPECT_EQ(minference->prefill().columns, 1000);
  EXPECT_EQ(minference->prefill().slashes, 6096);
  EXPECT_EQ(flexprefill->prefill().method, PrefillSettings::Method::kFlexPrefill);
  EXPECT_EQ(flexprefill->prefill().cover, 0.9);
  EXPECT_EQ(flexprefill->prefill().tau, 0.1);
  EXPECT_EQ(flexprefill->prefill().min_budget, 1024);
  EXPECT_EQ(xattention->prefill().method, PrefillSettings::Method::kXAttention);
  EXPECT_EQ(xattention->prefill().cover, 0.9);
  EXPECT_EQ(xattention->prefill().stride, 16);
  EXPECT_EQ(xattention->prefill().block, 128);
  for (const auto* shape : {&*a_shape, &*tri_shape}) {
    EXPECT_EQ(shape->prefill().method, PrefillSettings::Method::kShape);
    EXPECT_EQ(shape->prefill().sinks, 128);
    EXPECT_EQ(shape->prefill().local, 3968);
  }
  EXPECT_EQ(a_shape->prefill().last_rows, 0);
  EXPECT_EQ(tri_shape->prefill().last_rows, 100);
  for (const auto* policy : {&*minference, &*flexprefill, &*xattention, &*a_shape, &*tri_shape}) {
    EXPECT_FALSE(policy->is_dense());
    EXPECT_EQ(policy->prefill().alpha, 0.955) << "of the floor";
    EXPECT_EQ(policy->decode().budget, 0);
  }
  const Result<Policy> quest = Policy::Parse("quest");
  ASSERT_TRUE(quest.ok());
  EXPECT_FALSE(quest->is_dense());
  EXPECT_EQ(quest->prefill().method, PrefillSettings::Method::kDense);
  EXPECT_EQ(quest->decode().method, DecodeSettings::Method::kPages);
  EXPECT_EQ(quest->decode().budget, 1024);
  EXPECT_EQ(quest->decode().dense_layers, 2);
  EXPECT_TRUE(Policy::Parse("quest:budget=0")->is_dense());
  const Result<Policy> sparse_decode = Policy::Parse("xattention:budget=99,interval=7,queries=5");
  ASSERT_TRUE(sparse_decode.ok());
  EXPECT_EQ(sparse_decode->decode().budget, 99);
  EXPECT_EQ(sparse_decode->decode().interval, 7);
  EXPECT_EQ(sparse_decode->decode().queries, 5);
}

// Budgets, windows, pooling and shares of the published code; compressed once.
TEST(PolicyTest, EvictionIsAsPublished) {
  using Method = EvictionSettings::Method;
  const std::pair<const char*, Method> kMethods[] = {{"snapkv", Method::kSnapKv},
                                                     {"pyramidkv", Method::kPyramidKv},
                                                     {"adakv", Method::kAdaKv},
                                                     {"h2o", Method::kH2O},
                                                     {"streaming", Method::kStreaming}};
  for (const auto& [name, method] : kMethods) {
    const Result<Policy> policy = Policy::Parse(name);
    ASSERT_TRUE(policy.ok()) << policy.status().message();
    const EvictionSettings& settings = policy->eviction();
    EXPECT_FALSE(policy->is_dense());
    EXPECT_EQ(policy->prefill().method, PrefillSettings::Method::kDense);
    EXPECT_EQ(policy->decode().budget, 0);
    EXPECT_EQ(settings.method, method);
    EXPECT_EQ(settings.budget, 1024);
    EXPECT_FALSE(settings.every_turn || settings.observes_output);
    const bool observes = method != Method::kH2O && method != Method::kStreaming;
    EXPECT_EQ(settings.window, observes ? 32 : 0);
    EXPECT_EQ(settings.pool, observes ? 7 : 0);
    EXPECT_EQ(settings.beta, method == Method::kPyramidKv ? 20 : 0);
    EXPECT_EQ(settings.alpha, method == Method::kAdaKv ? 0.2 : 0.0);
    EXPECT_EQ(settings.sinks, method == Method::kStreaming ? 4 : 0);
  }
  const Result<Policy> policy =
      Policy::Parse("adakv:budget=300,window=256,pool=5,alpha=1,when=every_turn,observe=output");
  ASSERT_TRUE(policy.ok()) << policy.status().message();
  EXPECT_EQ(policy->eviction().budget, 300);
  EXPECT_EQ(policy->eviction().window, 256);
  EXPECT_EQ(policy->eviction().pool, 5);
  EXPECT_EQ(policy->eviction().alpha, 1.0);
  EXPECT_TRUE(policy->eviction().every_turn);
  EXPECT_TRUE(policy->eviction().observes_output);
  EXPECT_EQ(Policy::Parse("dense")->eviction().method, EvictionSettings::Method::kNone);
}

TEST(PolicyTest, SaysWhatIsWrong) {
  const struct {
    std::string_view spec;
    const char* says;
  } kCases[] = {
      {"",
       "empty policy; there is: loopserve, paper, minference, flexprefill, xattention, a_shape, tri_shape, quest, "
       "snapkv, pyramidkv, adakv, h2o, streaming, dense (or full)"},
      {"sparse",
       "unknown policy 'sparse'; there is: loopserve, paper, minference, flexprefill, xattention, a_shape, tri_shape, "
       "quest, snapkv, pyramidkv, adakv, h2o, streaming, dense (or full)"},
      {"Dense", "unknown policy 'Dense'"},
      {":alpha=1", "no name before ':'"},
      {"dense:", "expected key=value, not ''"},
      {"dense:alpha", "expected key=value, not 'alpha'"},
      {"dense:alpha=", "expected key=value, not 'alpha='"},
      {"dense:=1", "expected key=value, not '=1'"},
      {"dense:alpha=1,", "expected key=value, not ''"},
      {"dense:,alpha=1", "expected key=value, not ''"},
      {"dense:alpha=1", "unknown key 'alpha'; dense takes no keys"},
      {"full:alpha=1", "unknown key 'alpha'; dense takes no keys"},
      {"dense:alpha=1,alpha=2", "key 'alpha' is given twice"},
      {" dense", "white space"},
      {"dense ", "white space"},
      {"dense\n", "white space"},
      {std::string_view("dense\0", 6), "control characters"},
      {"dense:alpha= 1", "white space"},
      {"dense,full", "unknown policy 'dense,full'"},
      {"loopserve:alpha=0", "alpha must be a number above 0 to 1, not '0'"},
      {"loopserve:alpha=1.01", "alpha must be a number above 0 to 1"},
      {"loopserve:alpha=nan", "alpha must be a number above 0 to 1, not 'nan'"},
      {"loopserve:alpha=0.9x", "alpha must be a number above 0 to 1"},
      {"loopserve:rows=97", "rows must be a whole number from 1 to 96"},
      {"loopserve:rows=1.5", "rows must be a whole number from 1 to 96"},
      {"paper:rows=5000", "rows must be a whole number from 1 to 4096"},
      {"paper:threshold=1", "unknown key 'threshold'; paper takes alpha, rows"},
      {"loopserve:budget=-1", "budget must be a whole number from 0"},
      {"loopserve:budget=99999999999999999999", "budget must be a whole number from 0"},
      {"paper:interval=0", "interval must be a whole number from 1 to 4096"},
      {"loopserve:interval=4", "unknown key 'interval'"},
      {"loopserve:recent=0", "recent must be a whole number from 1 to"},
      {"loopserve:per_query_head=2", "per_query_head must be one of 0, 1"},
      {"loopserve:queries=65", "queries must be a whole number from 1 to 64"},
      {"loopserve:seed=-3", "seed must be a whole number from 0"},
      {"minference:columns=29", "columns must be a whole number from 30"},
      {"minference:slashes=49", "slashes must be a whole number from 50"},
      {"minference:alpha=0.9", "unknown key 'alpha'; minference takes columns, slashes"},
      {"flexprefill:gamma=0", "gamma must be a number above 0 to 1"},
      {"flexprefill:tau=1.1", "tau must be a number from 0 to 1"},
      {"flexprefill:min_budget=0", "min_budget must be a whole number from 1"},
      {"xattention:threshold=2", "threshold must be a number above 0 to 1"},
      {"xattention:stride=5", "stride must be one of 4, 8, 16, not '5'"},
      {"a_shape:sinks=-1", "sinks must be a whole number from 0"},
      {"a_shape:local=0", "local must be a whole number from 1"},
      {"a_shape:last=5", "unknown key 'last'; a_shape takes sinks, local, reference"},
      {"a_shape:reference=-1", "reference must be a whole number from 0"},
      {"quest:alpha=0.9", "unknown key 'alpha'; quest takes budget, decode_min_keys, dense_layers, per_query_head"},
      {"quest:dense_layers=-1", "dense_layers must be a whole number from 0 to 1024"},
      {"tri_shape:last=0", "last must be a whole number from 1"},
      {"xattention:block=256", "block must be one of 64, 128, not '256'"},
      {"snapkv:budget=1", "budget must be a whole number from 2"},
      {"snapkv:budget=32", "budget must be above window, which is 32"},
      {"adakv:window=1024", "budget must be above window, which is 1024"},
      {"pyramidkv:window=2000", "window must be a whole number from 1 to 1024"},
      {"streaming:budget=4", "budget must be above sinks, which is 4"},
      {"snapkv:pool=4", "pool must be odd, not 4"},
      {"snapkv:pool=65", "pool must be a whole number from 1 to 63"},
      {"snapkv:when=often", "when must be one of once, every_turn, not 'often'"},
      {"adakv:observe=both", "observe must be one of prompt, output, not 'both'"},
      {"adakv:alpha=1.5", "alpha must be a number from 0 to 1"},
      {"pyramidkv:beta=0", "beta must be a whole number from 1 to 1000"},
      {"pyramidkv:observe=output", "unknown key 'observe'; pyramidkv takes budget, window, pool, beta, when"},
      {"h2o:window=3", "unknown key 'window'; h2o takes budget, when"},
  };
  for (const auto& c : kCases) {
    const Result<Policy> policy = Policy::Parse(c.spec);
    ASSERT_FALSE(policy.ok()) << c.spec;
    EXPECT_EQ(policy.status().code(), StatusCode::kInvalidArgument) << c.spec;
    EXPECT_THAT(policy.status().message(), HasSubstr(c.says));
  }
}

TEST(PolicyTest, SharedPrefillsAreTheSameSettingsOrDense) {
  const auto parse = [](const char* spec) { return Policy::Parse(spec).value(); };
  EXPECT_TRUE(parse("dense").SharesPrefill(Policy()));
  EXPECT_TRUE(parse("paper:budget=64").SharesPrefill(parse("paper:interval=4,queries=8")));
  EXPECT_FALSE(parse("paper:seed=1").SharesPrefill(parse("paper")));
  EXPECT_FALSE(parse("paper").SharesPrefill(Policy()));
  EXPECT_FALSE(parse("loopserve").SharesPrefill(parse("paper")));
  const Policy alone = parse("loopserve:alpha=0.9,budget=64").PrefillAlone();
  EXPECT_EQ(alone.decode().budget, 0);
  EXPECT_TRUE(alone.SharesPrefill(parse("loopserve:alpha=0.9")));
  EXPECT_EQ(alone.ToString(), "loopserve:alpha=0.9,budget=64/prefill");
}

}  // namespace
}  // namespace loopserve
