#include "bench/worker_protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "bench/worker.h"

namespace loopserve::bench {
namespace {

TEST(WorkerProtocolTest, RequestsSurviveTheWire) {
  WorkerRequest load{.operation = WorkerRequest::Operation::kLoad};
  load.spec = {.engine = "llama.cpp", .policy = "flash_attention", .model_path = "/m \"x\".gguf", .threads = 3};
  load.spec.max_tokens = 9000;
  load.spec.kv = "f16";
  const auto loaded = DecodeRequest(EncodeRequest(load));
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  EXPECT_EQ(loaded->spec.engine, "llama.cpp");
  EXPECT_EQ(loaded->spec.model_path, "/m \"x\".gguf");
  EXPECT_EQ(loaded->spec.threads, 3);
  EXPECT_EQ(loaded->spec.max_tokens, 9000);
  EXPECT_EQ(loaded->spec.linear_path, "auto");

  WorkerRequest run{.operation = WorkerRequest::Operation::kRun, .gen_tokens = 5};
  run.tokens = {1, 2, 70000};
  const auto ran = DecodeRequest(EncodeRequest(run));
  ASSERT_TRUE(ran.ok());
  EXPECT_EQ(ran->tokens, run.tokens);
  EXPECT_EQ(ran->gen_tokens, 5);
}

TEST(WorkerProtocolTest, NonsenseIsRefused) {
  for (const char* line : {"", "{", "[]", "{\"op\":\"fly\"}", "{\"op\":\"run\",\"prompt\":\"x\",\"gen_tokens\":1}"}) {
    EXPECT_EQ(DecodeRequest(line).status().code(), StatusCode::kInvalidArgument) << line;
  }
  for (const char* line : {"", "hello", "{}", "{\"ok\":1}"}) {
    EXPECT_EQ(DecodeReply(line).code(), StatusCode::kCorruptData) << line;
  }
  EXPECT_EQ(DecodeRunReply("{\"ok\":true}").status().code(), StatusCode::kCorruptData);
}

TEST(WorkerProtocolTest, FiguresAndErrorsSurviveTheWire) {
  RunFigures figures;
  figures.ttft_ms = 12.5;
  figures.prefill_density = 0.25;
  figures.output_error_p90 = 0.125;
  figures.floor_density = 0.0625;
  figures.decode_coverage_p10 = 0.5;
  figures.output = {4, 5};
  const auto decoded = DecodeRunReply(EncodeReply(figures));
  ASSERT_TRUE(decoded.ok());
  EXPECT_EQ(decoded->ttft_ms, 12.5);
  EXPECT_EQ(decoded->prefill_density, 0.25);
  EXPECT_EQ(decoded->output_error_p90, 0.125);
  EXPECT_EQ(decoded->floor_density, 0.0625);
  EXPECT_EQ(decoded->decode_coverage_p10, 0.5);
  EXPECT_EQ(decoded->tpot_ms, std::nullopt);
  EXPECT_EQ(decoded->output, figures.output);
  const Status error = DecodeReply(EncodeReply(Status(StatusCode::kUnsupported, "no such \"family\"")));
  EXPECT_EQ(error.code(), StatusCode::kUnsupported);
  EXPECT_EQ(error.message(), "no such \"family\"");
}

class EchoEngine : public MeasuredEngine {
 public:
  Status Prepare(std::span<const Token> context) override {
    context_ = context.size();
    return Status::Ok();
  }
  Result<RunFigures> Run(std::span<const Token> prompt, int gen_tokens) override {
    if (prompt.size() <= context_) return Status(StatusCode::kInvalidArgument, "nothing new");
    RunFigures figures;
    figures.ttft_ms = static_cast<double>(prompt.size() - context_);
    figures.output.assign(static_cast<size_t>(gen_tokens), prompt.back());
    return figures;
  }

 private:
  size_t context_ = 0;
};

TEST(WorkerTest, AnswersEveryRequestAndGoesOnAfterErrors) {
  std::istringstream in(
      "{\"op\":\"run\",\"prompt\":[1],\"gen_tokens\":1}\n"
      "garbage\n" +
      EncodeRequest({.operation = WorkerRequest::Operation::kLoad}) +
      "\n"
      "{\"op\":\"prepare\",\"context\":[1,2]}\n"
      "{\"op\":\"run\",\"prompt\":[1,2],\"gen_tokens\":1}\n"
      "{\"op\":\"run\",\"prompt\":[1,2,9],\"gen_tokens\":0}\n"
      "{\"op\":\"run\",\"prompt\":[1,2,9],\"gen_tokens\":2}\n");
  std::ostringstream out;
  ServeWorker(in, out, [](const EngineSpec&) -> Result<std::unique_ptr<MeasuredEngine>> {
    return std::unique_ptr<MeasuredEngine>(std::make_unique<EchoEngine>());
  });
  std::istringstream replies(out.str());
  std::vector<std::string> lines;
  for (std::string line; std::getline(replies, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 7u);
  for (const int i : {0, 1, 4, 5}) EXPECT_EQ(DecodeReply(lines[i]).code(), StatusCode::kInvalidArgument) << i;
  for (const int i : {2, 3, 6}) EXPECT_TRUE(DecodeReply(lines[i]).ok()) << i;
  EXPECT_EQ(DecodeRunReply(lines[6])->output, (std::vector<Token>{9, 9}));
}

}  // namespace
}  // namespace loopserve::bench
