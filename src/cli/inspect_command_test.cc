// `loopserve inspect` from the command line to its output, on a tiny model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "src/cli/json_output.h"
#include "src/cli/test_program.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

using testing::HasSubstr;

class InspectCommandTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::path(testing::TempDir()) / ("inspect_command_" + std::to_string(getpid()));
    std::filesystem::create_directories(dir_);
    TinyGgufOptions options = TinyModel(TinyFamily::kGemma3);
    options.context_tokens = 1024;
    ASSERT_TRUE(WriteTinyGguf(options, Path("m.gguf")).ok());
    n_layers_ = options.n_layers;
    Write("long.txt", 500);
    Write("short.txt", 20);
    Write("endless.txt", 3000);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::string Path(const std::string& name) const { return (dir_ / name).string(); }
  void Write(const std::string& name, int letters) const {
    std::ofstream file(Path(name));
    for (int i = 0; i < letters; ++i) file << static_cast<char>('A' + (i * i + i / 7) % 26);
  }

  ProgramOutcome Run(const std::vector<std::string>& options) const {
    std::vector<std::string> args = {"inspect", "-m", Path("m.gguf"), "--threads", "2"};
    args.insert(args.end(), options.begin(), options.end());
    return RunProgram(args);
  }
  /// The first layer without a sliding window, and one with.
  std::string GlobalLayer() const {
    const Json json = Json::parse(Run({"--text", Path("long.txt"), "--json"}).out);
    return json["turns"][0]["layers"][0]["layer"].dump();
  }

  std::filesystem::path dir_;
  int n_layers_ = 0;
};

TEST_F(InspectCommandTest, AReportOfEveryTurnAsTextAndAsJson) {
  const ProgramOutcome text = Run({"--text", Path("long.txt"), "--turns", "3"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_EQ(text.err, "");
  EXPECT_THAT(text.out, HasSubstr("turn 3: "));
  EXPECT_THAT(text.out, HasSubstr("sliding window are always dense"));
  const ProgramOutcome json =
      Run({"--text", Path("long.txt"), "--turns", "3", "--alpha", "0.9", "--rows", "32", "--json"});
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const Json document = Json::parse(json.out);
  EXPECT_EQ(document["policy"], "dense");
  EXPECT_EQ(document["alpha"], 0.9);
  EXPECT_EQ(document["sample_rows"], 32);
  ASSERT_EQ(document["turns"].size(), 3u);
  EXPECT_EQ(document["turns"][1]["first_position"], document["turns"][0]["keys"]);
  EXPECT_EQ(document["turns"][0]["prefill_density"], 1.0);
  EXPECT_TRUE(document["turns"][1]["all"]["column_overlap"].is_object());
}

TEST_F(InspectCommandTest, EachTextIsATurnAndAFileTakesTheJson) {
  Write("second.txt", 200);
  const ProgramOutcome run = Run({"--text", Path("long.txt"), "--text", Path("second.txt"), "--json", Path("o.json")});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("turn 2: "));
  std::ifstream file(Path("o.json"));
  EXPECT_EQ(Json::parse(file)["turns"].size(), 2u);
  EXPECT_EQ(Run({"--text", Path("long.txt"), "--text", Path("second.txt"), "--turns", "2"}).exit_code, 2);
}

TEST_F(InspectCommandTest, AHeadsLinesAndItsPicture) {
  const ProgramOutcome run = Run(
      {"--text", Path("long.txt"), "--turns", "2", "--layer", GlobalLayer(), "--head", "1", "--png", Path("o.png")});
  ASSERT_EQ(run.exit_code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("head 1: "));
  EXPECT_THAT(run.out, HasSubstr("the strongest: key, weight, token"));
  std::ifstream file(Path("o.png"), std::ios::binary);
  const std::string png{std::istreambuf_iterator<char>(file), {}};
  ASSERT_GT(png.size(), 24u);
  EXPECT_EQ(png.substr(0, 8), "\x89PNG\r\n\x1a\n");
  EXPECT_EQ(png.substr(12, 4), "IHDR");
  const auto number = [&](size_t at) {
    int n = 0;
    for (size_t i = at; i < at + 4; ++i) n = n * 256 + static_cast<unsigned char>(png[i]);
    return n;
  };
  // About 500 keys and 250 rows, a pixel each: two panels and three margins of 12; panel and margins of 20.
  const Json json = Json::parse(Run({"--text", Path("long.txt"), "--turns", "2", "--json"}).out);
  EXPECT_EQ(number(16), 2 * std::min(512, json["turns"][1]["keys"].get<int>()) + 36);
  EXPECT_EQ(number(20), json["turns"][1]["new_tokens"].get<int>() + 40);
}

TEST_F(InspectCommandTest, ErrorsSayWhatToDo) {
  const std::string text = Path("long.txt");
  struct Case {
    std::vector<std::string> options;
    int exit_code;
    const char* message;
  };
  const std::string beyond = std::to_string(n_layers_);
  std::string sliding = "0";
  if (GlobalLayer() == "0") sliding = "1";
  const Case cases[] = {
      {{}, 2, "--text"},
      {{"--text", text, "--head", "0"}, 2, "--layer"},
      {{"--text", text, "--layer", "0", "--png", Path("x.png")}, 2, "--head"},
      {{"--text", text, "--turn", "1"}, 2, "--png"},
      {{"--text", text, "--layer", GlobalLayer(), "--head", "0", "--turn", "2", "--png", Path("x.png")}, 2, "1 turns"},
      {{"--text", text, "--layer", GlobalLayer(), "--head", "0", "--png", Path("none/x.png")}, 1, "none/x.png"},
      {{"--text", text, "--layer", GlobalLayer(), "--head", "0", "--png", "-"}, 2, "needs a file"},
      {{"--text", text, "--layer", beyond}, 2, "the layer must be 0 to"},
      {{"--text", text, "--layer", "-1"}, 2, "the layer must be 0 to"},
      {{"--text", text, "--layer", GlobalLayer(), "--head", "999"}, 2, "the head must be 0 to"},
      {{"--text", text, "--layer", sliding}, 1, "sliding window"},
      {{"--text", text, "--alpha", "0"}, 2, "alpha must be above 0"},
      {{"--text", text, "--alpha", "1.5"}, 2, "--alpha"},
      {{"--text", text, "--rows", "0"}, 2, "--rows"},
      {{"--text", text, "--turns", "100"}, 2, "at least 64"},
      {{"--text", Path("short.txt")}, 2, "at least 64"},
      {{"--text", Path("none.txt")}, 1, "no such file"},
      {{"--text", Path("endless.txt")}, 1, "the context holds 1,024"},
      {{"--text", text, "--policy", "frob"}, 2, "frob"},
      {{"--text", text, "--json", Path("none/o.json")}, 1, "none/o.json"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.message);
    const ProgramOutcome run = Run(c.options);
    EXPECT_EQ(run.exit_code, c.exit_code) << run.err;
    EXPECT_EQ(run.out, "");
    EXPECT_THAT(run.err, testing::StartsWith("loopserve: error: "));
    EXPECT_THAT(run.err, HasSubstr(c.message));
  }
  EXPECT_FALSE(std::filesystem::exists(Path("x.png")));
}

}  // namespace
}  // namespace loopserve
