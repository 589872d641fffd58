// What clients see of a long prompt while it is read, and what becomes of it when they leave.
#include <future>
#include <thread>

#include "src/server/test_server.h"

namespace loopserve::server {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int kManyWords = 4000;  // some 12,000 tokens

class ServerPrefillTest : public ServerTest {
 protected:
  ServerPrefillTest() : ServerTest(32768) {}

  /// Told of every chunk.
  static ServerOptions EagerOptions() {
    ServerOptions options = Options();
    options.scheduler.progress_interval = std::chrono::milliseconds(0);
    return options;
  }
  static JsonIn LongBody(int n_words = kManyWords) {
    JsonIn body = ChatBody({{"user", TestWords(n_words, 1)}});
    body["stream"] = true;
    return body;
  }
  static bool Never(const std::string&) { return false; }
};

TEST_F(ServerPrefillTest, AStreamTellsHowFarThePromptIsRead) {
  Serve(EagerOptions());
  JsonIn body = LongBody();
  body["return_progress"] = true;
  int64_t processed = 0, total = 0;
  int n_told = 0;
  bool answer_began = false;
  for (const std::string& data : Stream("/v1/chat/completions", body)) {
    const JsonIn event = JsonIn::parse(data, nullptr, false);
    if (event.is_discarded()) continue;  // [DONE]
    if (!event.contains("prompt_progress")) {
      answer_began = true;
      continue;
    }
    EXPECT_FALSE(answer_began);
    const JsonIn& progress = event["prompt_progress"];
    total = progress["total"];
    EXPECT_EQ(progress["cache"], 0);
    EXPECT_GE(progress["processed"], processed);
    processed = progress["processed"];
    EXPECT_LE(processed, total);
    ++n_told;
  }
  EXPECT_TRUE(answer_began);
  EXPECT_GT(total, 2 * kManyWords);
  EXPECT_GT(n_told, 0) << "of what this thread was too slow for only the newest is left";
  EXPECT_EQ(processed, total);
}

TEST_F(ServerPrefillTest, ElseProgressIsAComment) {
  Serve(EagerOptions());
  const std::string received = ReadUntil(LongBody(), Never);
  EXPECT_TRUE(received.starts_with(": accepted\n\n")) << "headers and a first sign leave before anything is computed";
  EXPECT_THAT(received, HasSubstr("\n\n: progress "));
  EXPECT_THAT(received, Not(HasSubstr("prompt_progress")));
  EXPECT_LT(received.rfind(": progress "), received.find("data: "));
  EXPECT_THAT(received, HasSubstr("data: [DONE]"));
}

TEST_F(ServerPrefillTest, SilenceIsFilledWithPings) {
  Serve();
  // The engine does nothing until a ping came.
  std::promise<void> ping_came;
  std::thread holder(
      [&] { server_->context().scheduler->OnEngineThread([&](SessionPool&) { ping_came.get_future().wait(); }); });
  bool told = false;
  JsonIn body = ChatBody({{"user", TestWords(10, 1)}});
  body["stream"] = true;
  const std::string received = ReadUntil(body, [&](const std::string& so_far) {
    if (!told && so_far.find(": ping\n\n") != std::string::npos) {
      told = true;
      ping_came.set_value();
    }
    return false;
  });
  holder.join();
  EXPECT_LT(received.find(": ping\n\n"), received.find("data: "));
  EXPECT_THAT(received, HasSubstr("data: [DONE]"));
}

TEST_F(ServerPrefillTest, AClientThatLeavesEndsTheReading) {
  Serve(EagerOptions());
  const std::string received = ReadUntil(LongBody(2 * kManyWords), [](const std::string& so_far) {
    return so_far.find(": progress ") != std::string::npos;
  });
  EXPECT_THAT(received, Not(HasSubstr("data: ")));
  const Scheduler& scheduler = *server_->context().scheduler;
  for (int i = 0; i < 3000 && scheduler.n_running() > 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(scheduler.n_running(), 0u);
  EXPECT_EQ(engine_->kv_used_bytes(), 0u);
  auto client = Client();
  EXPECT_THAT(client.Get("/metrics")->body,
              HasSubstr("vllm:request_prefill_time_seconds_count{model_name=\"tiny\"} 0\n"))
      << "the prompt was not read to its end";
}

}  // namespace
}  // namespace loopserve::server
