// Dialogues that go to disk and come back: what is answered is what would have been, whoever asks.
#include "src/server/dialogue_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "src/base/temp_dir.h"
#include "src/server/session_pool.h"
#include "src/server/test_engine.h"

namespace loopserve::server {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;
using SaveState = DialogueStore::SaveState;

constexpr auto kLong = std::chrono::seconds(60);

/// What a server is between its start and its end.
struct Life {
  std::unique_ptr<Metrics> metrics = std::make_unique<Metrics>("tiny");
  std::unique_ptr<DialogueStore> store;
  std::unique_ptr<SessionPool> pool;
};

struct Turn {
  std::string id, text, why;
  int64_t reused = 0;
  std::vector<Token> tokens;  ///< held afterwards
};

class DialogueStoreTest : public testing::Test {
 protected:
  std::string Folder() const { return (dir_.path() / "sessions").string(); }
  std::unique_ptr<Life> Start(uint64_t disk_budget = 0, PoolOptions options = {},
                              std::shared_ptr<Engine> engine = nullptr) {
    if (engine == nullptr) engine = engine_;
    auto life = std::make_unique<Life>();
    auto store = DialogueStore::Open({Folder(), disk_budget}, life->metrics.get());
    EXPECT_TRUE(store.ok()) << store.status().message();
    if (!store.ok()) return life;
    life->store = std::move(store).value();
    life->store->ReadIndex(engine);
    options.store = life->store.get();
    life->pool = std::make_unique<SessionPool>(engine, options);
    return life;
  }
  JobSpec Spec(std::vector<Token> prompt, SessionName name = {}, const char* policy = "dense") const {
    JobSpec spec;
    spec.prompt = std::move(prompt);
    spec.name = std::move(name);
    spec.policy = *Policy::Parse(policy);
    return spec;
  }
  /// A whole turn with an answer of eight tokens; saved when this returns.
  static Turn Run(Life& life, const JobSpec& spec) {
    SessionPool::Lease lease = life.pool->Acquire(spec);
    while (!life.pool->Prepare(&lease, kLong)) {
    }
    Session& session = lease.dialogue->session;
    const auto read = session.Sync(spec.prompt);
    EXPECT_TRUE(read.ok()) << read.status().message();
    const auto written = session.Generate(TestSampling(8));
    EXPECT_TRUE(written.ok()) << written.status().message();
    Turn turn{lease.dialogue->id,
              written->text,
              lease.divergence ? lease.divergence->reason : "",
              read->cached_tokens,
              {session.tokens().begin(), session.tokens().end()}};
    life.pool->Release(lease.dialogue, static_cast<int64_t>(spec.prompt.size()));
    life.store->WaitSaved(turn.id, kLong);
    return turn;
  }
  /// The same dialogue in a session that was never stored.
  static std::string Alone(Session& session, const std::vector<Token>& prompt) {
    EXPECT_TRUE(session.Sync(prompt).ok());
    return session.Generate(TestSampling(8))->text;
  }
  static std::vector<Token> Join(std::span<const Token> a, std::span<const Token> b) {
    std::vector<Token> all(a.begin(), a.end());
    all.insert(all.end(), b.begin(), b.end());
    return all;
  }
  std::vector<fs::path> Files() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(Folder())) {
      if (entry.path().string().ends_with(".lssnap")) files.push_back(entry.path());
    }
    return files;
  }
  static std::string BytesOf(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static SessionInfo InfoOf(const Life& life, const std::string& id) {
    for (SessionInfo& info : life.pool->List("")) {
      if (info.id == id) return info;
    }
    ADD_FAILURE() << "there is no " << id;
    return {};
  }

  const TempDir dir_;
  const TestModel model_;
  const std::shared_ptr<Engine> engine_ = model_.Open();
};

TEST_F(DialogueStoreTest, ADialogueGoesOnAfterARestartAsIfThereHadBeenNone) {
  for (const char* policy : {"dense", kSparsePolicy}) {
    SCOPED_TRACE(policy);
    Session never = engine_->NewSession(*Policy::Parse(policy));
    std::vector<Token> prompt = TestTokens(300, 1);
    std::string id;
    for (unsigned turn = 0; turn < 4; ++turn) {
      auto life = Start();
      const Turn now = Run(*life, Spec(prompt, {}, policy));
      EXPECT_EQ(now.text, Alone(never, prompt)) << turn;
      EXPECT_EQ(now.reused, turn == 0 ? 0 : static_cast<int64_t>(prompt.size()) - 30);
      EXPECT_EQ(now.why, turn == 0 ? "not_held" : "");
      if (turn > 0) {
        EXPECT_EQ(now.id, id);
      }
      id = now.id;
      const SessionInfo info = InfoOf(*life, id);
      EXPECT_TRUE(info.in_memory && info.on_disk && info.saved);
      EXPECT_EQ(info.turns, turn + 1);
      prompt = Join(now.tokens, TestTokens(30, 10 + turn));
    }
  }
  EXPECT_EQ(Files().size(), 2u);
}

TEST_F(DialogueStoreTest, NamesTenantsAndSaltsStayApartOnDisk) {
  const std::vector<Token> prompt = TestTokens(300, 1);
  const NameSpace spaces[] = {{"", ""}, {"tenant-digest-one", ""}, {"tenant-digest-two", ""}, {"", "a-secret-salt"}};
  std::vector<std::string> ids;
  {
    auto life = Start();
    for (const NameSpace& space : spaces) {
      JobSpec spec = Spec(prompt, {"../../mine", true});
      spec.name_space = space;
      ids.push_back(Run(*life, spec).id);
    }
  }
  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()).size(), 4u);
  for (const fs::path& path : Files()) {
    EXPECT_TRUE(path.filename().string().starts_with("sess_")) << path << ": a client's name is no file's";
    for (const NameSpace& space : spaces) {
      for (const std::string& secret : {space.tenant, space.salt}) {
        EXPECT_TRUE(secret.empty() || BytesOf(path).find(secret) == std::string::npos) << secret;
      }
    }
  }
  auto life = Start();
  EXPECT_EQ(life->pool->List("tenant-digest-one").size(), 1u);
  EXPECT_EQ(life->pool->List("").size(), 2u);
  EXPECT_EQ(life->pool->List("other").size(), 0u);
  EXPECT_EQ(life->pool->Delete("other", ids[0]).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(life->pool->HeldTokens({"other", ""}, {}, {}, prompt), nullptr);
  EXPECT_NE(life->pool->HeldTokens({"", "a-secret-salt"}, {}, {}, prompt), nullptr);
  for (size_t i = 0; i < std::size(spaces); ++i) {
    JobSpec spec = Spec(prompt, i % 2 == 0 ? SessionName{"../../mine", true} : SessionName{});
    spec.name_space = spaces[i];
    if (i % 2 == 0)
      EXPECT_EQ(Run(*life, spec).id, ids[i]);
    else
      EXPECT_NE(Run(*life, spec).id, ids[i]) << "a name of its own goes on under it alone";
  }
  JobSpec stranger = Spec(prompt);
  stranger.name_space = {"other", ""};
  EXPECT_EQ(Run(*life, stranger).reused, 0);
}

TEST_F(DialogueStoreTest, WhenMemoryIsShortDialoguesGoToDiskAndComeBack) {
  const size_t block = engine_->kv_block_bytes();
  const auto engine = model_.Open(3 * block);
  auto life = Start(0, {.kv_budget_bytes = 3 * block}, engine);
  std::vector<Turn> turns;
  std::vector<std::unique_ptr<Session>> alone;
  for (unsigned i = 0; i < 6; ++i) {
    EXPECT_TRUE(life->pool->MakeRoom(block));
    turns.push_back(Run(*life, Spec(TestTokens(100, i))));
  }
  EXPECT_EQ(life->pool->size(), 3u);
  EXPECT_EQ(life->pool->n_unloaded(), 3);
  EXPECT_EQ(life->pool->n_dropped(), 0);
  EXPECT_EQ(life->pool->List("").size(), 6u);
  EXPECT_FALSE(InfoOf(*life, turns[0].id).in_memory);
  for (unsigned i = 0; i < 6; ++i) {
    EXPECT_TRUE(life->pool->MakeRoom(block));
    const Turn again = Run(*life, Spec(Join(turns[i].tokens, TestTokens(10, 20 + i))));
    EXPECT_EQ(again.id, turns[i].id);
    EXPECT_EQ(again.reused, std::ssize(turns[i].tokens));
    Session session = engine_->NewSession();
    EXPECT_EQ(turns[i].text, Alone(session, TestTokens(100, i)));
    EXPECT_EQ(again.text, Alone(session, Join(turns[i].tokens, TestTokens(10, 20 + i))));
  }
  EXPECT_THAT(life->metrics->ToText(), HasSubstr("loopserve:snapshot_restore_seconds_count{model_name=\"tiny\"} 6"));
}

TEST_F(DialogueStoreTest, ForksRewindsAndOtherPoliciesOfDialoguesOnDisk) {
  Turn first;
  const std::vector<Token> past = TestTokens(500, 1);
  {
    auto life = Start();
    first = Run(*life, Spec(past, {"named", true}));
  }
  {
    auto life = Start();
    auto lease = life->pool->Fork("", "named", "copy");
    ASSERT_TRUE(lease.ok()) << lease.status().message();
    while (!life->pool->Prepare(&*lease, kLong)) {
    }
    const std::string id = lease->dialogue->id;
    life->pool->Release(lease->dialogue, 0);
    EXPECT_EQ(life->pool->Fork("", "named", "copy").status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(life->pool->Fork("", first.id, "named").status().code(), StatusCode::kInvalidArgument);
    const Turn copy = Run(*life, Spec(Join(first.tokens, TestTokens(20, 2)), {"copy", true}));
    EXPECT_EQ(copy.id, id);
    EXPECT_EQ(copy.reused, std::ssize(first.tokens));
    EXPECT_FALSE(InfoOf(*life, first.id).in_memory) << "only the fork was read";
  }
  auto life = Start();
  const Turn other_way = Run(*life, Spec(Join(std::span(past).first(400), TestTokens(60, 3)), {"third", true}));
  EXPECT_EQ(other_way.reused, 400);
  EXPECT_EQ(other_way.why, "history_differs");
  EXPECT_NE(other_way.id, first.id);
  const Turn rewound = Run(*life, Spec(Join(std::span(past).first(450), TestTokens(5, 4)), {"named", true}));
  EXPECT_EQ(rewound.id, first.id);
  EXPECT_EQ(rewound.reused, 450);
  life.reset();
  life = Start();
  const Turn sparse = Run(*life, Spec(past, {"named", true}, kSparsePolicy));
  EXPECT_EQ(sparse.id, first.id);
  EXPECT_EQ(sparse.why, "policy_changed");
  life.reset();
  life = Start();
  EXPECT_EQ(InfoOf(*life, first.id).policy, Policy::Parse(kSparsePolicy)->ToString());
}

TEST_F(DialogueStoreTest, PinsDeletesAndTheDiskBudget) {
  std::vector<std::string> ids;
  {
    auto life = Start();
    for (unsigned i = 0; i < 3; ++i) {
      ids.push_back(Run(*life, Spec(TestTokens(300, i))).id);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    const auto pinned = life->pool->SetPinned("", ids[0], true);
    ASSERT_TRUE(pinned.ok() && pinned->valid());
    EXPECT_TRUE(pinned->get().ok());
    const auto deleted = life->pool->Delete("", ids[1]);
    ASSERT_TRUE(deleted.ok() && deleted->valid());
    EXPECT_TRUE(deleted->get().ok());
    EXPECT_EQ(Files().size(), 2u);
  }
  uint64_t used = 0;
  for (const fs::path& path : Files()) used += fs::file_size(path);
  auto life = Start(used + used / 4);
  EXPECT_EQ(life->pool->List("").size(), 2u);
  EXPECT_TRUE(InfoOf(*life, ids[0]).pinned);
  const std::string fourth = Run(*life, Spec(TestTokens(300, 4))).id;
  EXPECT_EQ(Files().size(), 2u);
  EXPECT_TRUE(InfoOf(*life, ids[0]).on_disk) << "pinned";
  EXPECT_TRUE(InfoOf(*life, fourth).on_disk);
  EXPECT_EQ(life->pool->List("").size(), 2u) << "the third gave way, and is not found";
  ASSERT_TRUE(life->pool->SetPinned("", fourth, true).ok());
  const Turn fifth = Run(*life, Spec(TestTokens(300, 5)));
  EXPECT_FALSE(fifth.text.empty()) << "a full disk is no request's error";
  EXPECT_EQ(life->store->StateOf(fifth.id), SaveState::kFailed);
  EXPECT_TRUE(InfoOf(*life, fifth.id).in_memory && !InfoOf(*life, fifth.id).on_disk);
  EXPECT_THAT(life->metrics->ToText(),
              HasSubstr("loopserve:snapshot_failures_total{model_name=\"tiny\",operation=\"save\"} 1"));
  // There is room again: what could not be saved is when the server ends.
  life->pool->Delete("", ids[0])->get();
  life->pool->SaveAll();
  life.reset();
  life = Start();
  EXPECT_TRUE(InfoOf(*life, fifth.id).on_disk);
}

/// A byte of the newest slot, of the table and of every region of a file that was saved once (docs/snapshot_format.md).
std::vector<size_t> PlacesIn(const std::string& bytes) {
  const auto u64 = [&](size_t at) {
    uint64_t value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    return static_cast<size_t>(value);
  };
  const size_t slot = 4096, table = u64(slot + 32), n_regions = u64(slot + 40) & 0xffffffff;
  std::vector<size_t> places = {slot, slot + 30, slot + 90, slot + 4090, table + 3, bytes.size() - 1};
  for (size_t i = 0; i < n_regions; ++i) {
    const size_t size = u64(table + 56 * i + 32);
    if (size > 0) places.push_back(u64(table + 56 * i + 24) + size / 2);
  }
  return places;
}

TEST_F(DialogueStoreTest, FilesThatCannotGoOnAreReadAgainFromTheirText) {
  const std::vector<Token> prompt = TestTokens(600, 1);
  Turn first;
  {
    auto life = Start();
    first = Run(*life, Spec(prompt, {}, kSparsePolicy));
  }
  const std::vector<Token> next = Join(first.tokens, TestTokens(20, 2));
  Session session = engine_->NewSession(*Policy::Parse(kSparsePolicy));
  const std::string expected = Alone(session, next);
  const fs::path path = Files()[0];
  const std::string good = BytesOf(path);
  const auto put = [&](const std::string& bytes) {
    for (const fs::path& file : Files()) fs::remove(file);
    std::ofstream(path, std::ios::binary) << bytes;
  };
  const std::vector<size_t> places = PlacesIn(good);
  EXPECT_GE(places.size(), 6u + 8u) << "id, metadata, policy, tokens, logits, queries, keys and values, codes";
  for (const size_t at : places) {
    std::string flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ 4);
    for (const std::string& bad : {flipped, good.substr(0, at)}) {
      SCOPED_TRACE(std::to_string(at) + (bad.size() < good.size() ? " cut" : " flipped"));
      put(bad);
      auto life = Start();
      const Turn turn = Run(*life, Spec(next, {}, kSparsePolicy));
      EXPECT_EQ(turn.text, expected);
      EXPECT_EQ(turn.reused, 0);
      EXPECT_THAT(life->metrics->ToText(), HasSubstr("loopserve:snapshot_failures_total{"));
      EXPECT_EQ(life->store->StateOf(turn.id), SaveState::kSaved);
    }
  }
  put(good);
  {
    auto life = Start();
    EXPECT_EQ(Run(*life, Spec(next, {}, kSparsePolicy)).reused, std::ssize(first.tokens)) << "as it was it is right";
  }
  put(good);
  TinyGgufOptions other = TinyModel(TinyFamily::kLlama);
  other.seed = 9;
  other.context_tokens = 4096;
  EngineOptions options;
  options.model_path = (dir_.path() / "other.gguf").string();
  options.threads = 1;
  ASSERT_TRUE(WriteTinyGguf(other, options.model_path).ok());
  auto life = Start(0, {}, *Engine::Open(options));
  EXPECT_EQ(life->pool->List("").size(), 0u) << "another model's is left alone";
  EXPECT_EQ(Run(*life, Spec(next, {}, kSparsePolicy)).reused, 0);
  EXPECT_EQ(BytesOf(path), good);
}

TEST_F(DialogueStoreTest, AFolderIsOneServersAndMayHoldOtherThings) {
  {
    auto life = Start();
    EXPECT_EQ(DialogueStore::Open({Folder(), 0}, nullptr).status().code(), StatusCode::kResourceExhausted);
    EXPECT_THAT(DialogueStore::Open({Folder(), 0}, nullptr).status().message(), HasSubstr("another server"));
    Run(*life, Spec(TestTokens(50, 1)));
  }
  Session chat = engine_->NewSession();
  ASSERT_TRUE(chat.Sync(TestTokens(50, 2)).ok());
  ASSERT_TRUE((*SessionStore::Open({Folder(), 0}))->Save(chat, "a chat", R"({"messages": []})").ok());
  ASSERT_TRUE((*SessionStore::Open({Folder(), 0}))->Save(chat, "no JSON", "{").ok());
  ASSERT_TRUE((*SessionStore::Open({Folder(), 0}))->Save(chat, "half", R"({"loopserve_server": 1})").ok());
  ASSERT_TRUE((*SessionStore::Open({Folder(), 0}))->Save(chat, "later", R"({"loopserve_server": 2})").ok());
  fs::create_symlink("/dev/zero", Folder() + "/x.lssnap");
  ASSERT_EQ(mkfifo((Folder() + "/y.lssnap").c_str(), 0600), 0);
  std::ofstream(Folder() + "/z.lssnap") << "a letter";
  auto life = Start();
  EXPECT_EQ(life->pool->List("").size(), 1u);
  EXPECT_EQ(Run(*life, Spec(TestTokens(50, 2))).reused, 0);
}

TEST_F(DialogueStoreTest, PoliciesThatForgetStayInMemory) {
  auto life = Start();
  const Turn turn = Run(*life, Spec(TestTokens(300, 1), {}, "snapkv:budget=128"));
  EXPECT_EQ(life->store->StateOf(turn.id), SaveState::kNever);
  EXPECT_EQ(life->pool->Save("", turn.id).status().code(), StatusCode::kUnsupported);
  EXPECT_TRUE(Files().empty());
  EXPECT_THAT(life->metrics->ToText(), Not(HasSubstr("loopserve:snapshot_failures_total{")));
  EXPECT_EQ(life->pool->Save("", "nobody").status().code(), StatusCode::kNotFound);
}

// A dialogue whose save waits goes on: the newer state is written, and what is deleted meanwhile does not come back.
TEST_F(DialogueStoreTest, SavesThatWaitAreReplacedOrGivenUp) {
  auto life = Start();
  std::vector<Token> prompt = TestTokens(700, 1);
  std::string id;
  for (unsigned turn = 0; turn < 10; ++turn) {
    SessionPool::Lease lease = life->pool->Acquire(Spec(prompt));
    ASSERT_TRUE(lease.dialogue->session.Sync(prompt).ok());
    id = lease.dialogue->id;
    life->pool->Release(lease.dialogue, std::ssize(prompt));
    prompt = Join(prompt, TestTokens(5, turn));
  }
  EXPECT_EQ(life->store->WaitSaved(id, kLong), SaveState::kSaved);
  EXPECT_EQ(InfoOf(*life, id).tokens, 745);
  EXPECT_TRUE(InfoOf(*life, id).saved);
  ASSERT_TRUE(life->pool->Save("", id).ok());
  life->pool->Delete("", id)->get();
  EXPECT_TRUE(Files().empty());
  EXPECT_EQ(life->store->StateOf(id), SaveState::kNever);
  EXPECT_EQ(life->pool->List("").size(), 0u);
}

}  // namespace
}  // namespace loopserve::server
