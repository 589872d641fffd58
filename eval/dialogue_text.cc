#include "eval/dialogue_text.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

namespace loopserve::eval {
namespace {

std::string WithInput(std::string_view ask, std::string_view input) {
  constexpr std::string_view kPlace = "{input}";
  const size_t at = ask.find(kPlace);
  if (at == std::string_view::npos) return std::string(ask);
  return std::string(ask.substr(0, at)) + std::string(input) + std::string(ask.substr(at + kPlace.size()));
}

/// What stands behind "Passage N" in a passage; the whole text where it does not begin so.
std::string_view WithoutNumber(std::string_view passage, std::string_view marker) {
  if (!passage.starts_with(marker)) return passage;
  return passage.substr(std::min(passage.find_first_not_of("0123456789", marker.size()), passage.size()));
}

/// The texts of a turn, put together; passages are numbered through the whole dialogue.
class ContextWriter {
 public:
  ContextWriter(const DatasetSpec& dataset, const DialoguePlan& plan, const std::vector<PreparedDocument>& documents)
      : dataset_(dataset), plan_(plan), documents_(documents) {}

  std::string Write(const std::vector<Block>& blocks) {
    std::string text;
    for (const Block& block : blocks) {
      if (dataset_.kind == ContextKind::kDocument) {
        if (!text.empty()) text += "\n\n";
        text += Label(block);
      }
      const PreparedDocument& document = documents_[static_cast<size_t>(block.document)];
      for (size_t i = 0; i < document.parts.size(); ++i) {
        if (block.piece != Piece::kWhole && document.first[i] != (block.piece == Piece::kFirst)) continue;
        AddPart(document.parts[i], &text);
      }
    }
    // Passages that were not the last of their item end in a blank line.
    if (dataset_.kind == ContextKind::kPassages) text.resize(text.find_last_not_of('\n') + 1);
    return text;
  }

 private:
  /// "Report 2, part 1 of 2:\n", or the dataset's own label where there is but one document.
  std::string Label(const Block& block) const {
    if (!plan_.numbered && block.piece == Piece::kWhole) return std::string(dataset_.label);
    std::string label(dataset_.noun);
    if (plan_.numbered) label += " " + std::to_string(block.document + 1);
    if (block.piece != Piece::kWhole) label += block.piece == Piece::kFirst ? ", part 1 of 2" : ", part 2 of 2";
    return label + ":\n";
  }

  void AddPart(const std::string& part, std::string* text) {
    if (!text->empty() && text->back() != '\n' && dataset_.kind != ContextKind::kDocument) *text += "\n";
    if (dataset_.kind != ContextKind::kPassages) {
      *text += part;
      return;
    }
    const std::string_view body = WithoutNumber(part, dataset_.part);
    const bool is_numbered = body.size() < part.size();
    if (is_numbered) *text += std::string(dataset_.part) + std::to_string(++passages_);
    *text += body;
  }

  const DatasetSpec& dataset_;
  const DialoguePlan& plan_;
  const std::vector<PreparedDocument>& documents_;
  int passages_ = 0;
};

/// Says which document a question means, where there are several.
std::string About(const DatasetSpec& dataset, const DialoguePlan& plan, int document) {
  if (!plan.numbered) return "";
  const std::string noun(dataset.noun);
  return "\nThis is about " + noun + " " + std::to_string(document + 1) + ".";
}

/// The parts that are not empty, a blank line between them.
std::string Paragraphs(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) {
    if (part.empty()) continue;
    if (!text.empty()) text += "\n\n";
    text += part;
  }
  return text;
}

/// The question without the cue that some files put behind it.
std::string_view EarlyInput(const DatasetSpec& dataset, std::string_view input) {
  input = Trimmed(input);
  if (!dataset.input_cue.empty() && input.ends_with(dataset.input_cue)) input.remove_suffix(dataset.input_cue.size());
  return Trimmed(input);
}

/// about: says which document is meant, or nothing.
std::string WriteTurn(const DatasetSpec& dataset, const std::string& context, const Question& question,
                      const std::string& about, Position position) {
  const std::string ask = WithInput(dataset.ask, question.text) + about + std::string(dataset.cue);
  if (context.empty() && dataset.kind != ContextKind::kExamples) return std::string(Trimmed(ask));
  const std::string early_ask = WithInput(dataset.early_ask, EarlyInput(dataset, question.text)) + about;
  if (context.empty()) return Paragraphs({early_ask, dataset.early_cue});
  // The writer puts the labels before documents, as it numbers them.
  const bool is_labelled = dataset.kind == ContextKind::kDocument;
  if (position == Position::kEnd) {
    return std::string(dataset.intro) + std::string(is_labelled ? "" : dataset.label) + context + ask;
  }
  const std::string labelled = std::string(is_labelled ? "" : dataset.early_label) + std::string(Trimmed(context));
  if (position == Position::kBegin) {
    return Paragraphs({dataset.early_intro, early_ask, labelled, dataset.early_cue});
  }
  const size_t middle = MiddleBreak(labelled, dataset.part);
  const std::string_view text = labelled;
  return Paragraphs({dataset.early_intro, Trimmed(text.substr(0, middle)), early_ask, Trimmed(text.substr(middle)),
                     dataset.early_cue});
}

}  // namespace

WrittenDialogue WriteDialogue(const DatasetSpec& dataset, const DialoguePlan& plan,
                              const std::vector<PreparedDocument>& documents,
                              const std::vector<const Question*>& questions, Position position) {
  WrittenDialogue dialogue;
  ContextWriter writer(dataset, plan, documents);
  for (size_t i = 0; i < plan.turns.size(); ++i) {
    const TurnPlan& turn = plan.turns[i];
    const Question& question = *questions[i];
    TurnTask task;
    task.dataset = dataset.name;
    task.metric = dataset.metric;
    task.position = position;
    task.dependency = turn.dependency;
    task.text_turns = turn.text_turns;
    task.max_answer_tokens = dataset.max_answer_tokens;
    task.first_line_only = dataset.first_line_only;
    task.all_classes = plan.items[static_cast<size_t>(turn.document)]->item.all_classes;
    task.source_ids = {question.id};
    for (const Block& block : turn.blocks) {
      const std::string& id = plan.items[static_cast<size_t>(block.document)]->item.id;
      if (block.document != turn.document) task.source_ids.push_back(id);
    }
    task.cut_tokens = documents[static_cast<size_t>(turn.document)].cut_tokens;
    const std::string about = About(dataset, plan, turn.document);
    dialogue.turns.push_back(
        {WriteTurn(dataset, writer.Write(turn.blocks), question, about, position), question.answers, std::move(task)});
  }
  return dialogue;
}

}  // namespace loopserve::eval
