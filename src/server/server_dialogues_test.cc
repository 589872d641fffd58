// Dialogues over HTTP: interleaved, of several tenants, named, edited.
#include <thread>

#include "src/server/test_server.h"

namespace loopserve::server {
namespace {

/// What a dialogue says when it is alone, turn by turn.
std::vector<std::string> Alone(const Engine& engine, const std::string& policy, unsigned seed, int turns) {
  Session session = engine.NewSession(*Policy::Parse(policy));
  std::vector<ChatMessage> messages;
  std::vector<std::string> answers;
  for (int turn = 0; turn < turns; ++turn) {
    messages.push_back({"user", TestWords(turn == 0 ? 150 : 20, seed * 100 + static_cast<unsigned>(turn))});
    const auto tokens = engine.RenderChat(messages, true, session.tokens());
    EXPECT_TRUE(session.Sync(*tokens).ok());
    answers.push_back(session.Generate(TestSampling(16))->text);
    messages.push_back({"assistant", answers.back()});
  }
  return answers;
}

TEST_F(ServerTest, InterleavedDialoguesKeepTheirSecretsAndSayWhatTheySayAlone) {
  constexpr unsigned kDialogues = 12;
  constexpr int kTurns = 4;
  Serve();
  for (const std::string& policy : std::vector<std::string>{"dense", kSparsePolicy}) {
    std::vector<std::thread> clients;
    std::vector<std::vector<std::string>> answers(kDialogues);
    std::vector<int> wrong(kDialogues, 0), reused(kDialogues, 0);
    for (unsigned d = 0; d < kDialogues; ++d) {
      clients.emplace_back([&, d] {
        std::vector<Message> messages;
        for (int turn = 0; turn < kTurns; ++turn) {
          messages.push_back({"user", TestWords(turn == 0 ? 150 : 20, d * 100 + static_cast<unsigned>(turn))});
          JsonIn body = ChatBody(messages);
          body["policy"] = policy;
          body["max_tokens"] = 16;
          if (d % 3 == 0) body["session_id"] = policy + std::to_string(d);
          const auto [status, reply] = Post("/v1/chat/completions", body);
          if (status != 200) {
            ++wrong[d];
            return;
          }
          answers[d].push_back(TextOf(reply));
          reused[d] += reply["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
          const std::string whole = reply.dump();
          for (unsigned other = 0; other < kDialogues; ++other) {
            if (other != d && whole.find("secret" + std::to_string(other * 100)) != std::string::npos) ++wrong[d];
          }
          messages.push_back({"assistant", answers[d].back()});
        }
      });
    }
    for (std::thread& client : clients) client.join();
    for (unsigned d = 0; d < kDialogues; ++d) {
      SCOPED_TRACE(policy + " " + std::to_string(d));
      EXPECT_EQ(wrong[d], 0);
      EXPECT_GT(reused[d], 300);
      EXPECT_EQ(answers[d], Alone(*engine_, policy, d, kTurns));
    }
  }
}

TEST_F(ServerTest, KeysSeparateTenants) {
  ServerOptions options = Options();
  options.http.api_keys = {"key-one", "key-two"};
  Serve(options);
  const httplib::Headers one = {{"Authorization", "Bearer key-one"}}, two = {{"x-api-key", "key-two"}};
  JsonIn body = ChatBody({{"user", TestWords(150, 1)}});
  EXPECT_EQ(Post("/v1/chat/completions", body).first, 401);
  EXPECT_EQ(Post("/v1/chat/completions", std::string(2 << 20, ' ')).first, 401) << "a stranger's body is not read";
  EXPECT_EQ(Post("/v1/chat/completions", body, {{"Authorization", "Bearer key-onex"}}).first, 401);
  EXPECT_EQ(Get("/v1/models", {{"Authorization", "key-one"}}).first, 401);
  EXPECT_EQ(Get("/health").first, 200);
  const auto cached = [&](const httplib::Headers& headers) {
    const auto [status, reply] = Post("/v1/chat/completions", body, headers);
    EXPECT_EQ(status, 200);
    return reply["usage"]["prompt_tokens_details"]["cached_tokens"].get<int>();
  };
  EXPECT_EQ(cached(one), 0);
  EXPECT_EQ(cached(two), 0);
  EXPECT_GT(cached(one), 100);
  body["cache_salt"] = "pepper";
  EXPECT_EQ(cached(one), 0);
  EXPECT_GT(cached(one), 100);
  EXPECT_EQ(Get("/v1/sessions", one).second["data"].size(), 2u);
  const auto sessions = Get("/v1/sessions", two).second["data"];
  ASSERT_EQ(sessions.size(), 1u);
  const std::string id = sessions[0]["id"];
  EXPECT_EQ(Get("/v1/sessions/" + id, one).first, 404);
  EXPECT_EQ(Get("/v1/sessions/" + id, two).first, 200);
}

TEST_F(ServerTest, SessionsAreListedPinnedForkedAndDeleted) {
  Serve();
  JsonIn body = ChatBody({{"user", TestWords(50, 1)}});
  body["metadata"] = {{"session_id", "../../etc/passwd"}};
  const auto reply = Post("/v1/chat/completions", body).second;
  const std::string id = reply["loopserve"]["session_id"];
  auto list = Get("/v1/sessions").second["data"];
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0]["name"], "../../etc/passwd");
  EXPECT_EQ(list[0]["turns"], 1);
  EXPECT_EQ(Post("/v1/sessions/" + id + "/pin", JsonIn::object()).second["pinned"], true);
  EXPECT_EQ(Post("/v1/sessions/" + id + "/pin", {{"pinned", false}}).second["pinned"], false);
  EXPECT_EQ(Post("/v1/sessions/" + id + "/pin", {{"pinned", 3}}).first, 400);
  const auto fork = Post("/v1/sessions/" + id + "/fork", {{"session_id", "copy"}}).second;
  EXPECT_EQ(fork["name"], "copy");
  EXPECT_EQ(fork["exclusive_kv_bytes"], 0);
  auto client = Client();
  EXPECT_EQ(client.Delete("/v1/sessions/" + id)->status, 200);
  EXPECT_EQ(client.Delete("/v1/sessions/" + id)->status, 404);
  EXPECT_EQ(Get("/v1/sessions").second["data"].size(), 1u);
}

TEST_F(ServerTest, AnEditedHistorySaysWhereItDiffers) {
  Serve();
  std::vector<Message> messages = {{"user", TestWords(50, 1)}};
  JsonIn body = ChatBody(messages);
  const httplib::Headers name = {{"X-Conversation-Id", "c"}};
  const auto first = Post("/v1/chat/completions", body, name).second;
  messages[0].content[messages[0].content.size() - 3] = 'Q';
  const auto second = Post("/v1/chat/completions", ChatBody(messages), name).second;
  EXPECT_EQ(second["loopserve"]["session_id"], first["loopserve"]["session_id"]);
  EXPECT_EQ(second["loopserve"]["divergence"], "history_differs");
  EXPECT_EQ(second["loopserve"]["diverged_at"], second["usage"]["prompt_tokens_details"]["cached_tokens"]);
  EXPECT_GT(second["loopserve"]["diverged_at"], 20);
}

}  // namespace
}  // namespace loopserve::server
