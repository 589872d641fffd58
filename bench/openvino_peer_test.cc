// The helper's protocol against a stand-in for the Python packages it imports: what it asks of OpenVINO GenAI and what
// it answers. Needs a python3; the packages themselves are not needed.
#include "bench/peers/openvino_peer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "bench/worker_process.h"
#include "src/base/temp_dir.h"

namespace loopserve::bench {
namespace {

using std::chrono::seconds;

// Generates 100 + i for every prompt; time to first token: the prompt's tokens that no earlier prompt began with, if
// prefix caching is on.
constexpr char kFakeGenAi[] = R"(
import enum
class SchedulerConfig: pass
class SparseAttentionMode(enum.Enum): XATTENTION = 1
class AggregationMode(enum.Enum): NORM_SUM = 1
class SparseAttentionConfig:
    def __init__(self, mode): self.mode = mode
class CacheEvictionConfig:
    def __init__(self, start, recent, most, mode): self.sizes = (start, recent, most)
class GenerationConfig: pass
class TokenizedInputs:
    def __init__(self, ids, mask): self.ids = list(ids[0])
class Mean:
    def __init__(self, mean): self.mean = mean
class Metrics:
    def __init__(self, ttft, n): self.ttft, self.n = ttft, n
    def get_ttft(self): return Mean(self.ttft)
    def get_tpot(self): return Mean(2.5)
    def get_num_generated_tokens(self): return self.n
class Result: pass
class LLMPipeline:
    def __init__(self, model, device, scheduler_config, **properties):
        print("noise on stdout")
        if "unreadable" in model: raise RuntimeError("Unsupported tensor type")
        assert device == "CPU" and properties["INFERENCE_NUM_THREADS"] == 2
        self.config, self.seen = scheduler_config, []
    def generate(self, inputs, config):
        assert config.ignore_eos and not config.do_sample
        cached = 0
        for old in self.seen if self.config.enable_prefix_caching else []:
            n = 0
            while n < min(len(old), len(inputs.ids) - 1) and old[n] == inputs.ids[n]: n += 1
            cached = max(cached, n)
        self.seen.append(inputs.ids)
        result = Result()
        result.perf_metrics = Metrics(float(len(inputs.ids) - cached), config.max_new_tokens)
        result.tokens = [[100 + i for i in range(config.max_new_tokens)]]
        return result
def get_version(): return "fake"
)";
constexpr char kFakeNumpy[] = R"(
int64 = None
def array(rows, dtype): return rows
def ones_like(rows): return rows
)";

class OpenVinoPeerTest : public testing::Test {
 protected:
  OpenVinoPeerTest() {
    Write("openvino_genai.py", kFakeGenAi);
    Write("openvino.py", "def Tensor(array): return array\n");
    Write("numpy.py", kFakeNumpy);
    Write("python", "#!/bin/sh\nPYTHONPATH='" + folder_.path().string() + "' exec python3 \"$@\"\n");
    chmod((folder_.path() / "python").c_str(), 0755);
  }

  void Write(const std::string& name, const std::string& text) { std::ofstream(folder_.path() / name) << text; }

  Result<std::unique_ptr<WorkerProcess>> Start(const std::string& policy, const std::string& model = "m.gguf") {
    LS_ASSIGN_OR_RETURN(const auto command, OpenVinoCommand((folder_.path() / "python").string()));
    const EngineSpec spec{.engine = "openvino", .policy = policy, .model_path = model, .threads = 2};
    return WorkerProcess::Start(command, spec, seconds(60));
  }

  TempDir folder_;
};

TEST_F(OpenVinoPeerTest, TimesAWholePromptWithoutPrefixCaching) {
  auto worker = Start("full");
  ASSERT_TRUE(worker.ok()) << worker.status().message();
  ASSERT_TRUE((*worker)->Prepare({}).ok());
  for (int round = 0; round < 2; ++round) {
    const auto figures = (*worker)->Run(std::vector<Token>{5, 6, 7}, 4);
    ASSERT_TRUE(figures.ok()) << figures.status().message();
    EXPECT_EQ(figures->ttft_ms, 3);
    EXPECT_EQ(figures->tpot_ms, 2.5);
    EXPECT_EQ(figures->output, (std::vector<Token>{100, 101, 102, 103}));
    EXPECT_GT(figures->peak_rss_bytes.value_or(0), 1e6);
  }
}

TEST_F(OpenVinoPeerTest, TimesOnlyTheNewTokensOnAContext) {
  for (const char* policy : {"full", "xattention", "eviction:320"}) {
    auto worker = Start(policy);
    ASSERT_TRUE(worker.ok()) << worker.status().message();
    ASSERT_TRUE((*worker)->Prepare(std::vector<Token>{5, 6, 7, 8}).ok());
    EXPECT_EQ((*worker)->Run(std::vector<Token>{5, 6, 7, 8, 9, 10}, 2)->ttft_ms, 2) << policy;
    EXPECT_EQ((*worker)->Run(std::vector<Token>{5, 6, 7, 8, 11, 12}, 1)->tpot_ms, std::nullopt) << policy;
  }
}

TEST_F(OpenVinoPeerTest, AModelThatItCannotReadIsUnsupportedWithTheReason) {
  const auto worker = Start("full", "unreadable.gguf");
  ASSERT_FALSE(worker.ok());
  EXPECT_EQ(worker.status().code(), StatusCode::kUnsupported);
  EXPECT_THAT(worker.status().message(), testing::HasSubstr("Unsupported tensor type"));
}

TEST_F(OpenVinoPeerTest, UnknownPoliciesAreRefused) {
  for (const char* policy : {"fast", "full:3", "eviction:100", "eviction:1000"}) {
    EXPECT_EQ(Start(policy).status().code(), StatusCode::kInvalidArgument) << policy;
  }
}

TEST_F(OpenVinoPeerTest, WithoutThePackageItIsUnsupported) {
  std::filesystem::remove(folder_.path() / "openvino_genai.py");
  Write("openvino_genai.py", "raise ImportError('no module')\n");
  EXPECT_EQ(Start("full").status().code(), StatusCode::kUnsupported);
}

TEST(OpenVinoCommandTest, AMissingInterpreterSaysHowToGetIt) {
  const auto command = OpenVinoCommand("/nonexistent/python");
  EXPECT_EQ(command.status().code(), StatusCode::kNotFound);
  EXPECT_THAT(command.status().message(), testing::HasSubstr("tools/setup bench-peers"));
}

}  // namespace
}  // namespace loopserve::bench
