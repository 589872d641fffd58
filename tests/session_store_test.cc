// Stored dialogues through the public API: what goes on from a file gives, bit for bit, what it would have given.
#include "loopserve/session_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <random>
#include <thread>

#include "src/base/temp_dir.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr char kSparse[] = "loopserve:alpha=0.8,min_keys=0,budget=200,decode_min_keys=0,queries=5";

std::vector<Token> Tokens(int n, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::vector<Token> tokens(static_cast<size_t>(n));
  for (Token& token : tokens) token = static_cast<Token>(random() % 256);
  return tokens;
}

std::vector<Token> Held(const Session& session) { return {session.tokens().begin(), session.tokens().end()}; }
std::vector<float> Logits(const Session& session) { return {session.logits().begin(), session.logits().end()}; }

void MustSync(Session& session, std::span<const Token> tokens) {
  const auto stats = session.Sync(tokens);
  ASSERT_TRUE(stats.ok()) << stats.status().message();
}

void MustGenerate(Session& session, int n) {
  SamplingParams params;
  params.max_tokens = n;
  params.ignore_end_of_text = true;
  const auto stats = session.Generate(params);
  ASSERT_TRUE(stats.ok()) << stats.status().message();
}

/// The dialogue's next turn: n new tokens and an answer.
void GoOn(Session& session, int n, unsigned seed, int answer) {
  std::vector<Token> tokens = Held(session);
  for (const Token token : Tokens(n, seed)) tokens.push_back(token);
  MustSync(session, tokens);
  MustGenerate(session, answer);
}

class SessionStoreTest : public testing::Test {
 protected:
  std::string ModelPath(const std::string& name) const { return (dir_.path() / name).string(); }

  std::shared_ptr<Engine> Open(const TinyGgufOptions& tiny, EngineOptions options = {}) {
    options.model_path = ModelPath("model" + std::to_string(n_models_++) + ".gguf");
    options.threads = 1;  // compute threads wait for each other busily: beside savers, on few cores, that is slow
    const Status written = WriteTinyGguf(tiny, options.model_path);
    EXPECT_TRUE(written.ok()) << written.message();
    auto engine = Engine::Open(options);
    EXPECT_TRUE(engine.ok()) << engine.status().message();
    return engine.ok() ? *engine : nullptr;
  }

  std::shared_ptr<Engine> OpenLlama(EngineOptions options = {}, int context = 4096) {
    TinyGgufOptions tiny = TinyModel(TinyFamily::kLlama);
    tiny.head_dim = 32;
    tiny.context_tokens = context;
    return Open(tiny, options);
  }

  std::unique_ptr<SessionStore> Store(uint64_t budget_bytes = 0) {
    auto store = SessionStore::Open({(dir_.path() / "sessions").string(), budget_bytes});
    EXPECT_TRUE(store.ok()) << store.status().message();
    return store.ok() ? std::move(store).value() : nullptr;
  }

  static Session New(const Engine& engine, const char* spec) {
    auto policy = Policy::Parse(spec);
    EXPECT_TRUE(policy.ok()) << policy.status().message();
    return engine.NewSession(*policy);
  }

  static Session MustRestore(SessionStore& store, const Engine& engine, std::string_view id) {
    auto restored = store.Restore(engine, id);
    EXPECT_TRUE(restored.ok()) << restored.status().message();
    return restored.ok() ? std::move(restored->session) : engine.NewSession();
  }

  static SaveStats MustSave(SessionStore& store, const Session& session, std::string_view id,
                            std::string_view metadata = {}) {
    const auto stats = store.Save(session, id, metadata);
    EXPECT_TRUE(stats.ok()) << stats.status().message();
    return stats.ok() ? *stats : SaveStats{};
  }

  static void ExpectSame(Session& a, Session& b) {
    EXPECT_EQ(Held(a), Held(b));
    EXPECT_EQ(Logits(a), Logits(b)) << "bit for bit";
    EXPECT_EQ(a.policy().ToString(), b.policy().ToString());
  }

  TempDir dir_;
  int n_models_ = 0;
};

TEST_F(SessionStoreTest, EveryFamilyGoesOnAsIfItHadNeverBeenStored) {
  for (const NamedTinyModel& model : AllTinyModels()) {
    for (const KvPrecision precision : {KvPrecision::kF16, KvPrecision::kQ8_0}) {
      TinyGgufOptions tiny = model.options;
      tiny.context_tokens = 4096;
      if (precision == KvPrecision::kQ8_0 && tiny.head_dim % 32 != 0) {
        tiny.head_dim = (tiny.head_dim + 31) / 32 * 32;
        tiny.n_embd = tiny.n_heads * tiny.head_dim;
      }
      EngineOptions options;
      options.kv_precision = precision;
      const auto engine = Open(tiny, options);
      ASSERT_NE(engine, nullptr);
      const auto store = Store();
      for (const char* spec : {"dense", kSparse, "paper:rows=16,budget=64,interval=4,queries=6", "quest:budget=96"}) {
        SCOPED_TRACE(model.name + " " + spec + (precision == KvPrecision::kQ8_0 ? " q8_0" : " f16"));
        Session session = New(*engine, spec);
        MustSync(session, Tokens(700));
        MustGenerate(session, 20);
        const std::string id = model.name + spec + std::to_string(static_cast<int>(precision));
        MustSave(*store, session, id);
        Session restored = MustRestore(*store, *engine, id);
        ExpectSame(session, restored);
        for (unsigned turn = 0; turn < 3; ++turn) {
          GoOn(session, 90, 7 + turn, 25);
          GoOn(restored, 90, 7 + turn, 25);
          ExpectSame(session, restored);
        }
      }
    }
  }
}

// Every turn the session of a process of its own, as it were: saved, restored, continued; against one that never was.
TEST_F(SessionStoreTest, ManyTurnsOfSavingAndRestoring) {
  const auto engine = OpenLlama();
  const auto store = Store();
  for (const char* spec : {"dense", kSparse}) {
    SCOPED_TRACE(spec);
    Session never = New(*engine, spec);
    MustSync(never, Tokens(2100));
    MustSave(*store, never, "turns");
    int n_appended = 0;
    for (unsigned turn = 0; turn < 24; ++turn) {
      SCOPED_TRACE(turn);
      Session again = MustRestore(*store, *engine, "turns");
      GoOn(never, 30, turn, 11);
      GoOn(again, 30, turn, 11);
      ExpectSame(never, again);
      n_appended += MustSave(*store, again, "turns").appended ? 1 : 0;
    }
    EXPECT_GE(n_appended, 22);
    ASSERT_TRUE(store->Delete("turns").ok());
  }
}

TEST_F(SessionStoreTest, SavesWriteWhatIsNew) {
  const auto engine = OpenLlama();
  const auto store = Store();
  Session session = engine->NewSession();
  MustSync(session, Tokens(2000));
  const uint64_t kv = 2000 * engine->model().kv_bytes_per_token;
  const SaveStats first = MustSave(*store, session, "a");
  EXPECT_FALSE(first.appended);
  EXPECT_GE(first.written_bytes, kv);
  const SaveStats same = MustSave(*store, session, "a");
  EXPECT_TRUE(same.appended);
  EXPECT_LT(same.written_bytes, 8192u);
  GoOn(session, 20, 3, 10);
  const SaveStats next = MustSave(*store, session, "a");
  EXPECT_TRUE(next.appended);
  EXPECT_GE(next.kept_bytes, kv);
  EXPECT_LT(next.written_bytes, kv / 20);
  // Another dialogue under the same name shares what it shares.
  std::vector<Token> edited = Held(session);
  edited[1000] ^= 1;
  MustSync(session, edited);
  const SaveStats rewound = MustSave(*store, session, "a");
  EXPECT_GT(rewound.kept_bytes, 700 * engine->model().kv_bytes_per_token);
  EXPECT_GT(rewound.written_bytes, 1000 * engine->model().kv_bytes_per_token);
  Session restored = MustRestore(*store, *engine, "a");
  ExpectSame(session, restored);
}

TEST_F(SessionStoreTest, WhatNobodyRefersToIsNotKeptForEver) {
  const auto engine = OpenLlama();
  const auto store = Store();
  uint64_t largest = 0;
  bool rewritten = false;
  for (unsigned seed = 0; seed < 30; ++seed) {
    Session session = engine->NewSession();
    MustSync(session, Tokens(3000, seed));
    const SaveStats stats = MustSave(*store, session, "a");
    rewritten = rewritten || (seed > 0 && !stats.appended);
    largest = std::max(largest, stats.file_bytes);
  }
  const uint64_t live = 3000 * engine->model().kv_bytes_per_token;
  EXPECT_LE(largest, live + live / 2 + (uint64_t{17} << 20));
  EXPECT_TRUE(rewritten);
}

TEST_F(SessionStoreTest, EmptySessionsAndMetadataRoundTrip) {
  const auto engine = OpenLlama();
  const auto store = Store();
  Session empty = New(*engine, kSparse);
  std::string metadata(100'000, '\0');
  for (size_t i = 0; i < metadata.size(); ++i) metadata[i] = static_cast<char>(i * 7);
  MustSave(*store, empty, "empty", metadata);
  auto restored = store->Restore(*engine, "empty");
  ASSERT_TRUE(restored.ok()) << restored.status().message();
  EXPECT_EQ(restored->metadata, metadata);
  EXPECT_TRUE(restored->session.tokens().empty());
  EXPECT_EQ(restored->session.policy().ToString(), empty.policy().ToString());
  MustSync(restored->session, Tokens(50));
  const auto text = store->ReadText("empty");
  ASSERT_TRUE(text.ok());
  EXPECT_EQ(text->metadata, metadata);
  EXPECT_EQ(text->policy, empty.policy().ToString());
  const auto too_long = store->Save(empty, "empty", std::string((size_t{64} << 20) + 1, 'x'));
  EXPECT_EQ(too_long.status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(store->ReadText("empty").ok());
}

TEST_F(SessionStoreTest, PoliciesThatCannotBeStoredAreNamed) {
  const auto engine = OpenLlama();
  const auto store = Store();
  Session evicting = New(*engine, "snapkv");
  MustSync(evicting, Tokens(100));
  EXPECT_EQ(store->Save(evicting, "a").status().code(), StatusCode::kUnsupported);
  const std::vector<Policy> with_dense = {Policy(), *Policy::Parse("snapkv")};
  const std::vector<Policy> sparse = {*Policy::Parse(kSparse)};
  for (const std::vector<Policy>& policies : {with_dense, sparse}) {
    auto shared = engine->NewSharedPrefill(policies);
    ASSERT_TRUE(shared.ok());
    EXPECT_THAT(store->Save(*shared, "a").status().message(), HasSubstr("cannot be stored"));
  }
  EXPECT_EQ(store->Restore(*engine, "a").status().code(), StatusCode::kNotFound);
}

TEST_F(SessionStoreTest, SessionsOfAnotherKindAreRefusedByName) {
  TinyGgufOptions tiny = TinyModel(TinyFamily::kLlama);
  tiny.head_dim = 32;
  const auto engine = Open(tiny);
  const auto store = Store();
  Session session = engine->NewSession();
  MustSync(session, Tokens(300));
  MustSave(*store, session, "a", "the text");

  TinyGgufOptions other_weights = tiny;
  other_weights.seed = 2;
  TinyGgufOptions other_template = tiny;
  other_template.chat_template = "{{ messages[0].content }}";
  EngineOptions q8;
  q8.kv_precision = KvPrecision::kQ8_0;
  EngineOptions quantized;
  quantized.linear_path =
      engine->model().linear_path == LinearPath::kQuantized ? LinearPath::kF32 : LinearPath::kQuantized;
  const std::pair<std::shared_ptr<Engine>, const char*> cases[] = {
      {Open(other_weights), "another model"}, {Open(other_template), "another model"}, {Open(tiny, q8), "--kv-type"}};
  for (const auto& [other, words] : cases) {
    const auto refused = store->Restore(*other, "a");
    EXPECT_EQ(refused.status().code(), StatusCode::kUnsupported);
    EXPECT_THAT(refused.status().message(), HasSubstr(words));
  }
  if (engine->model().linear_path != LinearPath::kQuantized) {
    const auto refused = store->Restore(*Open(tiny, quantized), "a");
    EXPECT_THAT(refused.status().message(), HasSubstr("--linear"));
  }
  EXPECT_EQ(store->ReadText("a")->metadata, "the text") << "to be read again from its text";
  // The same bytes under another name are the same model.
  EXPECT_TRUE(store->Restore(*Open(tiny), "a").ok());

  EngineOptions small;
  small.max_context_tokens = 200;
  EXPECT_EQ(store->Restore(*Open(tiny, small), "a").status().code(), StatusCode::kContextLength);
  EngineOptions poor;
  poor.kv_budget_bytes = engine->model().kv_bytes_per_token * 256;
  const auto engine_without_room = Open(tiny, poor);
  EXPECT_EQ(store->Restore(*engine_without_room, "a").status().code(), StatusCode::kResourceExhausted);
  Session fits = engine_without_room->NewSession();
  EXPECT_TRUE(fits.Sync(Tokens(200)).ok()) << "what a refused restore took was given back";
}

TEST_F(SessionStoreTest, DamagedBytesNeverComeBackAsADialogue) {
  const auto engine = OpenLlama();
  const auto store = Store();
  Session session = New(*engine, kSparse);
  MustSync(session, Tokens(700));
  MustSave(*store, session, "a", "metadata");
  fs::path path;
  for (const auto& entry : fs::directory_iterator(dir_.path() / "sessions")) path = entry.path();
  std::ifstream in(path, std::ios::binary);
  const std::string good(std::istreambuf_iterator<char>(in), {});
  const auto restore = [&](const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
    return store->Restore(*engine, "a");
  };
  std::mt19937_64 random(5);
  for (int i = 0; i < 600; ++i) {
    // Every header byte that is used, the end with its table, and samples of the rest.
    const size_t at = i < 200   ? static_cast<size_t>(i) + 4096
                      : i < 300 ? good.size() - 1 - static_cast<size_t>(i - 200) * 5
                                : 8192 + random() % (good.size() - 8192);
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (random() % 8)));
    const auto restored = restore(bad);
    ASSERT_FALSE(restored.ok()) << "byte " << at;
    EXPECT_EQ(restored.status().code(), StatusCode::kCorruptData) << "byte " << at << restored.status().message();
    EXPECT_FALSE(restored.status().message().empty());
  }
  for (int i = 0; i < 200; ++i) {
    const size_t length = i < 20 ? static_cast<size_t>(i) * 500 : random() % good.size();
    const auto restored = restore(good.substr(0, length));
    ASSERT_EQ(restored.status().code(), StatusCode::kCorruptData) << "length " << length;
  }
  const auto restored = restore(good);
  ASSERT_TRUE(restored.ok()) << restored.status().message();
}

TEST_F(SessionStoreTest, AForkIsSavedWhileTheDialogueGoesOn) {
  const auto engine = OpenLlama();
  const auto store = Store();
  for (const char* spec : {"dense", kSparse}) {
    Session session = New(*engine, spec);
    MustSync(session, Tokens(600));
    Session twin = New(*engine, spec);
    MustSync(twin, Tokens(600));
    const auto go_on = [](Session& one, unsigned turn) {
      if (turn % 2 == 1) {  // an edited end: rows that the fork holds too are forgotten and written anew
        std::vector<Token> edited = Held(one);
        edited.resize(edited.size() - 10);
        MustSync(one, edited);
      }
      GoOn(one, 40, turn, 12);
    };
    for (unsigned turn = 0; turn < 6; ++turn) {
      auto fork = std::make_unique<Session>(session.Fork());
      const std::vector<Token> at_fork = Held(session);
      std::optional<Result<SaveStats>> saved;
      std::thread saver([&] {
        saved = store->Save(*fork, "fork");
        fork.reset();
      });
      go_on(session, turn);
      saver.join();
      ASSERT_TRUE(saved->ok()) << saved->status().message();
      Session restored = MustRestore(*store, *engine, "fork");
      EXPECT_EQ(Held(restored), at_fork);
      go_on(restored, turn);
      go_on(twin, turn);
      ExpectSame(session, restored);
      ExpectSame(session, twin);
    }
  }
}

TEST_F(SessionStoreTest, AForkOfARestoredDialogueSharesItsPast) {
  const auto engine = OpenLlama();
  const auto store = Store();
  Session session = New(*engine, kSparse);
  MustSync(session, Tokens(600));
  MustSave(*store, session, "a");
  Session restored = MustRestore(*store, *engine, "a");
  Session fork = restored.Fork();
  EXPECT_EQ(restored.exclusive_kv_bytes(), 0u);
  GoOn(restored, 20, 2, 10);
  GoOn(fork, 20, 3, 10);
  GoOn(session, 20, 2, 10);
  ExpectSame(session, restored);
}

TEST_F(SessionStoreTest, ListsPinsDeletesAndKeepsItsBudget) {
  const auto engine = OpenLlama();
  Session session = engine->NewSession();
  MustSync(session, Tokens(512));
  const uint64_t one = MustSave(*Store(), session, "probe").file_bytes;
  ASSERT_TRUE(Store()->Delete("probe").ok());
  const auto store = Store(one * 3 + one / 2);
  for (const char* id : {"first", "second", "third"}) {
    MustSave(*store, session, id);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  ASSERT_TRUE(store->SetPinned("first", true).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  MustRestore(*store, *engine, "second");
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  MustSave(*store, session, "fourth");
  auto list = store->List();
  ASSERT_TRUE(list.ok());
  std::vector<std::string> ids;
  for (const StoredSessionInfo& info : *list) ids.push_back(info.id + (info.pinned ? "*" : ""));
  EXPECT_THAT(ids, testing::ElementsAre("fourth", "second", "first*")) << "the third was used least recently";
  EXPECT_EQ((*list)[0].n_tokens, 512);
  EXPECT_EQ(store->Restore(*engine, "third").status().code(), StatusCode::kNotFound);
  ASSERT_TRUE(store->SetPinned("second", true).ok());
  ASSERT_TRUE(store->SetPinned("fourth", true).ok());
  const auto full = store->Save(session, "fifth");
  EXPECT_EQ(full.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(full.status().message(), HasSubstr("budget"));
  EXPECT_EQ(store->List()->size(), 3u) << "nothing was deleted for what could not be";
  ASSERT_TRUE(store->Delete("fourth").ok()) << "pinned or not";
  EXPECT_EQ(store->Delete("fourth").code(), StatusCode::kNotFound);
  MustSave(*store, session, "fifth");
  MustRestore(*store, *engine, "first");
}

TEST_F(SessionStoreTest, SingleFiles) {
  const auto engine = OpenLlama();
  const std::string path = (dir_.path() / "one.session").string();
  Session session = New(*engine, kSparse);
  MustSync(session, Tokens(300));
  ASSERT_TRUE(SaveSession(session, path, "m").ok());
  auto restored = RestoreSession(*engine, path);
  ASSERT_TRUE(restored.ok()) << restored.status().message();
  ExpectSame(session, restored->session);
  EXPECT_EQ(ReadSessionText(path)->tokens, Held(session));
  EXPECT_EQ(RestoreSession(*engine, path + "x").status().code(), StatusCode::kNotFound);
  for (const char* bad : {"", "/", ".", "..", "x/"})
    EXPECT_EQ(SaveSession(session, bad).status().code(), StatusCode::kInvalidArgument) << bad;
  EXPECT_EQ(SaveSession(session, path + "/y").status().code(), StatusCode::kIoError);
  std::ofstream(dir_.path() / "letter.txt") << "dear reader";
  EXPECT_EQ(SaveSession(session, (dir_.path() / "letter.txt").string()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(fs::file_size(dir_.path() / "letter.txt"), 11u);
}

}  // namespace
}  // namespace loopserve
