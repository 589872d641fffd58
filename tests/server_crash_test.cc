// The real program, killed at every step of a save, on a full disk, ended in an answer: after a restart dialogues go on
// from the state before or the new one, with the answers of a run that was never interrupted.
// usage: server_crash_test LOOPSERVE LIBRARY (tests/support/fatal_step.cc) [options of gtest]
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "loopserve/engine.h"
#include "src/base/temp_dir.h"
#include "tests/support/child_server.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;
using testing::HasSubstr;

std::string g_program, g_library;

constexpr int kAnswer = 8;
constexpr char kSparse[] = "loopserve:min_keys=64,decode_min_keys=64,budget=64,recent=8";

struct Reply {
  int status = 0;  ///< 0: the connection broke
  std::string text, id;
  int64_t cached = 0;
};

/// A turn as it is without any interruption.
struct Turn {
  std::vector<Token> prompt, held;  ///< held: afterwards
  std::string text;
};

class ServerCrashTest : public testing::Test {
 protected:
  ServerCrashTest() {
    TinyGgufOptions tiny = TinyModel(TinyFamily::kLlama);
    tiny.context_tokens = 4096;
    EXPECT_TRUE(WriteTinyGguf(tiny, Path("tiny.gguf")).ok());
    EngineOptions options;
    options.model_path = Path("tiny.gguf");
    options.threads = 1;
    engine_ = *Engine::Open(options);
  }
  std::string Path(const std::string& name) const { return (dir_.path() / name).string(); }
  std::unique_ptr<ChildServer> Start(const ChildServer::Environment& environment = {},
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {"-m", Path("tiny.gguf"), "--sessions-dir", Path("sessions")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto server = std::make_unique<ChildServer>(g_program, arguments, Path("log"), environment);
    return server;
  }
  std::unique_ptr<ChildServer> StartFaulty(int step, bool half, int error = 0) const {
    ChildServer::Environment environment = {{"LD_PRELOAD", g_library},
                                            {"LS_STEP_FOLDER", fs::canonical(dir_.path()).string() + "/sessions"},
                                            {"LS_STEP", std::to_string(step)}};
    if (half) environment.emplace_back("LS_STEP_HALF", "1");
    if (error != 0) environment.emplace_back("LS_STEP_ERRNO", std::to_string(error));
    return Start(environment);
  }
  static httplib::Client Client(const ChildServer& server) {
    httplib::Client client("127.0.0.1", server.port());
    client.set_read_timeout(120);
    return client;
  }
  static Json Body(const std::vector<Token>& prompt, const std::string& policy, int max_tokens) {
    return {{"prompt", prompt}, {"max_tokens", max_tokens}, {"ignore_eos", true}, {"policy", policy}};
  }
  static Reply Ask(const ChildServer& server, const std::vector<Token>& prompt, const std::string& policy) {
    auto client = Client(server);
    const auto result = client.Post("/v1/completions", Body(prompt, policy, kAnswer).dump(), "application/json");
    if (!result) return {};
    const Json json = Json::parse(result->body, nullptr, false);
    if (result->status != 200) return {result->status, result->body, "", 0};
    return {200, json["choices"][0]["text"], json["loopserve"]["session_id"], json["loopserve"]["cached_tokens"]};
  }
  static Json Sessions(const ChildServer& server) {
    auto client = Client(server);
    const auto result = client.Get("/v1/sessions");
    return result ? Json::parse(result->body, nullptr, false)["data"] : Json::array();
  }
  static std::string MetricsOf(const ChildServer& server) {
    auto client = Client(server);
    const auto result = client.Get("/metrics");
    return result ? result->body : "";
  }
  /// True when the only dialogue is saved; false when the process is dead.
  static bool WaitForSave(ChildServer& server) {
    while (server.IsAlive()) {
      const Json sessions = Sessions(server);
      if (sessions.size() == 1 && sessions[0]["saved"] == true) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  /// What follows `before` in a session that holds it, or anew.
  Turn Next(Session& session, const std::vector<Token>& prompt) const {
    EXPECT_TRUE(session.Sync(prompt).ok());
    SamplingParams sampling;
    sampling.max_tokens = kAnswer;
    sampling.ignore_end_of_text = true;
    const auto stats = session.Generate(sampling);
    EXPECT_TRUE(stats.ok());
    return {prompt, {session.tokens().begin(), session.tokens().end()}, stats->text};
  }
  static std::vector<Token> Later(const std::vector<Token>& held, int n, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<Token> tokens = held;
    for (int i = 0; i < n; ++i) tokens.push_back(static_cast<Token>(random() % 256));
    return tokens;
  }

  /// Three turns: the first is saved whole (or, if `fresh`, there is none), the save of the second dies at `step`, the
  /// third comes after the restart. False when the save had no such step.
  bool DieAndGoOn(int step, bool half, bool fresh, const std::string& policy) {
    fs::remove_all(Path("sessions"));
    Session never = engine_->NewSession(*Policy::Parse(policy));
    Session old = engine_->NewSession(*Policy::Parse(policy));
    Turn first;
    if (!fresh) {
      first = Next(never, Later({}, 300, 1));
      old = never.Fork();
      auto server = Start();
      EXPECT_EQ(Ask(*server, first.prompt, policy).text, first.text);
      server->Kill(SIGTERM);
      EXPECT_EQ(server->exit_code(), 0) << server->Log();
    }
    const Turn second = Next(never, Later(first.held, 40, 2));
    const std::vector<Token> prompt = Later(second.held, 20, 3);
    const Turn from_new = Next(never, prompt), from_old = Next(old, prompt);
    bool is_saved = false;
    {
      auto server = StartFaulty(step, half);
      EXPECT_NE(server->port(), 0) << server->Log();
      const Reply reply = Ask(*server, second.prompt, policy);
      // The process may die before its answer has left.
      EXPECT_TRUE(reply.status == 0 || reply.text == second.text) << reply.text;
      is_saved = WaitForSave(*server);
    }
    auto server = Start();
    const Reply reply = Ask(*server, prompt, policy);
    EXPECT_EQ(reply.status, 200) << reply.text << server->Log();
    const bool is_new = reply.cached == std::ssize(second.held);
    EXPECT_TRUE(is_new || (!is_saved && reply.cached == std::ssize(first.held))) << reply.cached;
    EXPECT_EQ(reply.text, is_new ? from_new.text : from_old.text);
    EXPECT_EQ(MetricsOf(*server).find("snapshot_failures_total{"), std::string::npos) << server->Log();
    server->Kill(SIGTERM);
    for (const auto& entry : fs::directory_iterator(Path("sessions"))) {
      const std::string name = entry.path().filename().string();
      EXPECT_TRUE(name == ".owner" || name.ends_with(".lssnap")) << name;
    }
    return !is_saved;
  }

  const TempDir dir_;
  std::shared_ptr<Engine> engine_;
};

TEST_F(ServerCrashTest, KilledAtEveryStepOfTheFirstSave) {
  int step = 0;
  for (; !HasFailure() && DieAndGoOn(step, /*half=*/true, /*fresh=*/true, "dense"); ++step) SCOPED_TRACE(step);
  EXPECT_GE(step, 10);
}

TEST_F(ServerCrashTest, KilledAtEveryStepOfALaterSave) {
  for (const bool half : {false, true}) {
    int step = 0;
    for (; !HasFailure() && DieAndGoOn(step, half, /*fresh=*/false, kSparse); ++step) SCOPED_TRACE(step);
    EXPECT_GE(step, 8);
  }
}

TEST_F(ServerCrashTest, AFullDiskIsNoRequestsError) {
  auto server = StartFaulty(0, false, ENOSPC);
  Session session = engine_->NewSession();
  Turn turn = Next(session, Later({}, 200, 1));
  for (unsigned i = 0; i < 3; ++i) {
    const Reply reply = Ask(*server, turn.prompt, "dense");
    EXPECT_EQ(reply.text, turn.text);
    EXPECT_EQ(reply.cached, i == 0 ? 0 : std::ssize(turn.prompt) - 10) << "from memory";
    turn = Next(session, Later(turn.held, 10, 2 + i));
  }
  auto client = Client(*server);
  const std::string id = Sessions(*server)[0]["id"];
  EXPECT_EQ(Sessions(*server)[0]["where"], "memory");
  EXPECT_EQ(client.Post("/v1/sessions/" + id + "/save")->status, 503);
  EXPECT_THAT(MetricsOf(*server), HasSubstr("operation=\"save\""));
  EXPECT_THAT(server->Log(), HasSubstr("No space left"));
  server->Kill(SIGTERM);
  EXPECT_EQ(server->exit_code(), 0);
}

TEST_F(ServerCrashTest, SigtermInAnAnswerSavesWhatIsThere) {
  const std::vector<Token> prompt = Later({}, 300, 1);
  {
    auto server = Start({}, {"--grace", "0"});
    auto client = Client(*server);
    Json body = Body(prompt, "dense", 3000);
    body["stream"] = true;
    bool asked = false;
    const auto take = [&](const char*, size_t) {
      if (!std::exchange(asked, true)) server->Signal(SIGTERM);
      return true;
    };
    client.Post("/v1/completions", {}, body.dump(), "application/json", take);
    EXPECT_TRUE(asked);
    server->Wait();
    EXPECT_EQ(server->exit_code(), 0) << server->Log();
  }
  auto server = Start();
  const Json sessions = Sessions(*server);
  ASSERT_EQ(sessions.size(), 1u);
  EXPECT_EQ(sessions[0]["where"], "disk");
  EXPECT_GE(sessions[0]["tokens"], 299);
  const Reply reply = Ask(*server, prompt, "dense");
  EXPECT_GE(reply.cached, 299);
  EXPECT_EQ(reply.id, sessions[0]["id"]);
  Session session = engine_->NewSession();
  EXPECT_EQ(reply.text, Next(session, prompt).text);
}

TEST_F(ServerCrashTest, TheSecondServerOfAFolderSaysSo) {
  auto first = Start();
  EXPECT_NE(first->port(), 0);
  ChildServer second(g_program, {"-m", Path("tiny.gguf"), "--sessions-dir", Path("sessions")}, Path("log2"));
  EXPECT_EQ(second.port(), 0);
  EXPECT_GT(second.exit_code(), 0);
  EXPECT_THAT(second.Log(), HasSubstr("in use by another server"));
  first->Kill(SIGKILL);
  EXPECT_NE(Start()->port(), 0) << "the lock goes with the process";
}

}  // namespace
}  // namespace loopserve

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  if (argc != 3) return 2;
  loopserve::g_program = argv[1];
  loopserve::g_library = argv[2];
  return RUN_ALL_TESTS();
}
