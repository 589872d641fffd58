#include "eval/dialogue_builder.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "eval/dialogue_plan.h"
#include "eval/dialogue_text.h"
#include "eval/item_pool.h"

namespace loopserve::eval {
namespace {

// Chat templates put a few tokens around each message, and some a system message of their own before the first.
constexpr int64_t kTemplateTokens = 32;
constexpr int64_t kTemplateTokensPerTurn = 12;
constexpr int64_t kMinRoomTokens = 64;  // for a document: with less there is no text to ask about

int64_t AnswerRoom(const DialogueTurn& turn, const CountTokens& count) {
  int64_t room = turn.task ? turn.task->max_answer_tokens : 0;
  for (const std::string& reference : turn.reference) room = std::max(room, count(reference));
  return room;
}

/// The most that each of several needs may get so that together they take no more than `total`: small ones get all.
int64_t FairShare(std::vector<int64_t> needs, int64_t total) {
  std::sort(needs.begin(), needs.end());
  for (size_t i = 0; i < needs.size(); ++i) {
    const int64_t share = total / static_cast<int64_t>(needs.size() - i);
    if (needs[i] > share) return share;
    total -= needs[i];
  }
  return needs.empty() ? total : needs.back();
}

bool IsSplit(const DialoguePlan& plan, int document) {
  return std::any_of(plan.turns.begin(), plan.turns.end(), [&](const TurnPlan& turn) {
    return std::any_of(turn.blocks.begin(), turn.blocks.end(),
                       [&](const Block& block) { return block.document == document && block.piece != Piece::kWhole; });
  });
}

std::vector<PreparedDocument> PrepareDocuments(const DatasetSpec& dataset, const DialoguePlan& plan, int64_t room,
                                               const CountTokens& count) {
  std::vector<int64_t> needs;
  for (const PooledItem* pooled : plan.items) needs.push_back(pooled->context_tokens);
  const int64_t share = FairShare(needs, room);
  std::vector<PreparedDocument> documents;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const bool is_split = IsSplit(plan, static_cast<int>(i));
    documents.push_back(PrepareDocument(dataset, *plan.items[i], share, is_split, count));
  }
  return documents;
}

class Builder {
 public:
  Builder(const DatasetSpec& dataset, std::vector<Item> items, const BuildOptions& options, const CountTokens& count)
      : dataset_(dataset), options_(options), count_(count), pool_(MakePool(dataset, std::move(items), count)) {}

  Result<BuiltDialogues> Build() {
    for (size_t i = 0; i < options_.dependencies.size(); ++i) {
      LS_RETURN_IF_ERROR(Add(options_.dependencies[i], SamplesOf(i)));
    }
    return std::move(built_);
  }

 private:
  std::string Name(Dependency dependency) const {
    return std::string(dataset_.name) + ", " + std::string(NameOf(dependency));
  }

  /// Its place in the table and not among the datasets asked for: asking for fewer changes nothing in the others.
  int PlaceOfDataset() const { return static_cast<int>(FindDataset(dataset_.name) - Datasets().data()); }

  /// Dialogues of each position that the dependency with this index gets.
  int SamplesOf(size_t dependency) const {
    if (!options_.mix) return options_.samples;
    const auto n = static_cast<int>(options_.dependencies.size());
    int samples = 0;
    for (int i = 0; i < options_.samples; ++i) {
      if ((i + PlaceOfDataset()) % n == static_cast<int>(dependency)) ++samples;
    }
    return samples;
  }

  Status Add(Dependency dependency, int samples) {
    if (samples == 0) return Status::Ok();
    const bool shares = SharesDocument(dataset_, pool_, dependency);
    const auto n_items = static_cast<size_t>(ItemsOfDialogue(shares));
    std::seed_seq seed{static_cast<uint32_t>(options_.seed), static_cast<uint32_t>(options_.seed >> 32),
                       static_cast<uint32_t>(PlaceOfDataset()), static_cast<uint32_t>(dependency)};
    std::mt19937_64 random(seed);
    ItemNeed need;
    need.share_tokens = (options_.tokens - dataset_.max_answer_tokens * kTurns) / static_cast<int64_t>(n_items);
    need.min_questions = shares ? kTurns : 1;
    need.splits = dependency == Dependency::kCross;
    std::vector<const PooledItem*> order = OrderItems(dataset_, pool_, need, count_, &random);
    if (order.size() < n_items) {
      return Status(StatusCode::kInvalidArgument, Name(dependency) + ": a dialogue takes " + std::to_string(n_items) +
                                                      " different items, but there are " +
                                                      std::to_string(order.size()));
    }
    const auto per_pass = static_cast<int>(order.size() / n_items);
    for (int sample = 0; sample < samples; ++sample) {
      if (options_.cancel && *options_.cancel) return Status(StatusCode::kCancelled, "interrupted");
      const int pass = sample / per_pass;
      // Later passes meet other items in their dialogues; documents with several questions go on in them instead.
      if (sample % per_pass == 0 && pass > 0 && !shares) Shuffle(&order, &random);
      if (pass > 0) built_.reused_items += static_cast<int64_t>(n_items);
      const auto first = order.begin() + static_cast<ptrdiff_t>(n_items) * (sample % per_pass);
      DialoguePlan plan = MakePlan(dataset_, dependency, {first, first + static_cast<ptrdiff_t>(n_items)});
      plan.uses_before = pass;
      LS_RETURN_IF_ERROR(AddDialogues(plan, Name(dependency), IdOf(dependency, sample)));
    }
    return Status::Ok();
  }

  std::string IdOf(Dependency dependency, int sample) const {
    return std::string(dataset_.name) + "-" + std::string(NameOf(dependency)) + "-" + std::to_string(sample + 1);
  }

  /// The dialogue with its question at each position asked for. All positions, asked for or not, must fit: the texts
  /// then are the same whichever are asked for.
  Status AddDialogues(const DialoguePlan& plan, const std::string& name, const std::string& id) {
    const auto n_documents = static_cast<int64_t>(plan.items.size());
    int64_t room = options_.tokens;
    // What stands around the texts is known once they are written; a few rounds settle it.
    constexpr int kRounds = 8;
    for (int round = 0; round < kRounds; ++round) {
      int64_t text_tokens = 0;
      const int64_t longest = Write(plan, room, &text_tokens);
      if (longest <= options_.tokens) {
        Keep(id, longest);
        return Status::Ok();
      }
      // From what the texts took, and not from the room that they had: whole passages leave some of it free.
      room = std::min(room, text_tokens) - (longest - options_.tokens);
      if (room < kMinRoomTokens * n_documents) {
        const int64_t enough = options_.tokens + kMinRoomTokens * n_documents - room;
        return Status(StatusCode::kInvalidArgument, name + ": " + std::to_string(options_.tokens) +
                                                        " tokens are too few; this dialogue takes at least " +
                                                        std::to_string(enough));
      }
    }
    return Status(StatusCode::kInternal, name + ": the texts could not be cut to their length");
  }

  /// Writes all positions into variants_; the tokens of the longest. text_tokens: of its documents, about.
  int64_t Write(const DialoguePlan& plan, int64_t room, int64_t* text_tokens) {
    const std::vector<PreparedDocument> documents = PrepareDocuments(dataset_, plan, room, count_);
    for (size_t i = 0; i < documents.size(); ++i)
      *text_tokens += plan.items[i]->context_tokens - documents[i].cut_tokens;
    const std::vector<const Question*> questions = ChooseQuestions(plan, documents);
    variants_.clear();
    int64_t longest = 0;
    for (const Position position : AllOf<Position>()) {
      variants_.push_back(WriteDialogue(dataset_, plan, documents, questions, position));
      longest = std::max(longest, TokensOfDialogue(variants_.back(), count_));
    }
    return longest;
  }

  void Keep(const std::string& id, int64_t longest) {
    built_.longest_tokens = std::max(built_.longest_tokens, longest);
    for (const Position position : options_.positions) {
      WrittenDialogue dialogue = variants_[static_cast<size_t>(position)];
      dialogue.id = id + "-" + std::string(NameOf(position));
      for (const DialogueTurn& turn : dialogue.turns) {
        ++built_.turns;
        if (!turn.task->truncated()) continue;
        ++built_.cut_turns;
        built_.cut_tokens += turn.task->cut_tokens;
      }
      built_.dialogues.push_back(std::move(dialogue));
    }
  }

  const DatasetSpec& dataset_;
  const BuildOptions& options_;
  const CountTokens& count_;
  std::vector<PooledItem> pool_;
  std::vector<WrittenDialogue> variants_;  ///< one for each position
  BuiltDialogues built_;
};

}  // namespace

int64_t TokensOfDialogue(const WrittenDialogue& dialogue, const CountTokens& count) {
  int64_t tokens = kTemplateTokens;
  for (const DialogueTurn& turn : dialogue.turns) {
    tokens += kTemplateTokensPerTurn + count(turn.user) + AnswerRoom(turn, count);
  }
  return tokens;
}

Result<BuiltDialogues> BuildDialogues(const DatasetSpec& dataset, std::vector<Item> items, const BuildOptions& options,
                                      const CountTokens& count) {
  if (options.samples < 1 || options.tokens < 1) {
    return Status(StatusCode::kInvalidArgument, "samples and tokens must be at least 1");
  }
  return Builder(dataset, std::move(items), options, count).Build();
}

}  // namespace loopserve::eval
