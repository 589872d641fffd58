#include "eval/datasets.h"

namespace loopserve::eval {
namespace {

constexpr std::string_view kPassage = "Passage ";

/// The three multi-hop sets differ in their files alone.
constexpr DatasetSpec MultiHop(std::string_view name) {
  constexpr std::string_view kAsk =
      "\n\nAnswer the question based on the given passages. Only give me the answer and do not output any other words."
      "\n\nQuestion: {input}";
  constexpr std::string_view kLabel = "The following are given passages.\n";
  return {.name = name,
          .metric = Metric::kTokenF1,
          .max_answer_tokens = 32,
          .kind = ContextKind::kPassages,
          .part = kPassage,
          .intro =
              "Answer the question based on the given passages. Only give me the answer and do not output any "
              "other words.\n\n",
          .label = kLabel,
          .ask = kAsk,
          .cue = "\nAnswer:",
          .early_label = kLabel,
          .early_ask = kAsk.substr(2),
          .early_cue = "Answer:"};
}

constexpr DatasetSpec kDatasets[] = {
    {.name = "narrativeqa",
     .metric = Metric::kTokenF1,
     .max_answer_tokens = 128,
     .noun = "Story",
     // "asconcisely" is LongBench's own spelling: models that are compared read the same.
     .intro = "You are given a story, which can be either a novel or a movie script, and a question. Answer the "
              "question asconcisely as you can, using a single phrase if possible. Do not provide any "
              "explanation.\n\n",
     .label = "Story: ",
     .ask = "\n\nNow, answer the question based on the story asconcisely as you can, using a single phrase if "
            "possible. Do not provide any explanation.\n\nQuestion: {input}",
     .cue = "\n\nAnswer:",
     .early_intro = "You are given a story, which can be either a novel or a movie script, and a question.",
     .early_label = "Story: ",
     .early_ask = "Answer the question based on the story as concisely as you can, using a single phrase if possible. "
                  "Do not provide any explanation.\n\nQuestion: {input}",
     .early_cue = "Answer:"},
    {.name = "qasper",
     .metric = Metric::kTokenF1,
     .max_answer_tokens = 128,
     .noun = "Article",
     .intro = "You are given a scientific article and a question. Answer the question as concisely as you can, using "
              "a single phrase or sentence if possible. If the question cannot be answered based on the information "
              "in the article, write \"unanswerable\". If the question is a yes/no question, answer \"yes\", \"no\", "
              "or \"unanswerable\". Do not provide any explanation.\n\n",
     .label = "Article: ",
     .ask = "\n\n Answer the question based on the above article as concisely as you can, using a single phrase or "
            "sentence if possible. If the question cannot be answered based on the information in the article, write "
            "\"unanswerable\". If the question is a yes/no question, answer \"yes\", \"no\", or \"unanswerable\". Do "
            "not provide any explanation.\n\nQuestion: {input}",
     .cue = "\n\nAnswer:",
     .early_intro = "You are given a scientific article and a question.",
     .early_label = "Article: ",
     .early_ask = "Answer the question based on the article as concisely as you can, using a single phrase or "
                  "sentence if possible. If the question cannot be answered based on the information in the article, "
                  "write \"unanswerable\". If the question is a yes/no question, answer \"yes\", \"no\", or "
                  "\"unanswerable\". Do not provide any explanation.\n\nQuestion: {input}",
     .early_cue = "Answer:"},
    {.name = "multifieldqa_en",
     .metric = Metric::kTokenF1,
     .max_answer_tokens = 64,
     .noun = "Text",
     .intro = "Read the following text and answer briefly.\n\n",
     .ask = "\n\nNow, answer the following question based on the above text, only give me the answer and do not "
            "output any other words.\n\nQuestion: {input}",
     .cue = "\nAnswer:",
     .early_intro = "Read the following text and answer briefly.",
     .early_ask = "Answer the following question based on the text, only give me the answer and do not output any "
                  "other words.\n\nQuestion: {input}",
     .early_cue = "Answer:"},
    MultiHop("hotpotqa"),
    MultiHop("2wikimqa"),
    MultiHop("musique"),
    {.name = "gov_report",
     .metric = Metric::kRougeL,
     .max_answer_tokens = 512,
     .noun = "Report",
     .intro = "You are given a report by a government agency. Write a one-page summary of the report.\n\n",
     .label = "Report:\n",
     .ask = "\n\nNow, write a one-page summary of the report.",
     .cue = "\n\nSummary:",
     .early_intro = "You are given a report by a government agency.",
     .early_label = "Report:\n",
     .early_ask = "Write a one-page summary of the report.",
     .early_cue = "Summary:"},
    {.name = "qmsum",
     .metric = Metric::kRougeL,
     .max_answer_tokens = 512,
     .noun = "Transcript",
     .intro = "You are given a meeting transcript and a query containing a question or instruction. Answer the query "
              "in one or more sentences.\n\n",
     .label = "Transcript:\n",
     .ask = "\n\nNow, answer the query based on the above meeting transcript in one or more sentences.\n\nQuery: "
            "{input}",
     .cue = "\nAnswer:",
     .early_intro = "You are given a meeting transcript and a query containing a question or instruction.",
     .early_label = "Transcript:\n",
     .early_ask = "Answer the query based on the meeting transcript in one or more sentences.\n\nQuery: {input}",
     .early_cue = "Answer:"},
    {.name = "multi_news",
     .metric = Metric::kRougeL,
     .max_answer_tokens = 512,
     .noun = "News collection",
     .part = kPassage,
     .intro = "You are given several news passages. Write a one-page summary of all news. \n\n",
     .label = "News:\n",
     .ask = "\n\nNow, write a one-page summary of all the news.",
     .cue = "\n\nSummary:",
     .early_intro = "You are given several news passages.",
     .early_label = "News:\n",
     .early_ask = "Write a one-page summary of all the news.",
     .early_cue = "Summary:"},
    {.name = "trec",
     .metric = Metric::kClassAccuracy,
     .max_answer_tokens = 64,
     .first_line_only = true,
     .kind = ContextKind::kExamples,
     .part = "Question: ",
     .intro = "Please determine the type of the question below. Here are some examples of questions.\n\n",
     .ask = "\n{input}",
     .early_label = "Here are some examples of questions.\n\n",
     .early_ask = "Please determine the type of this question.\n{input}",
     .early_cue = "The type of the question that was asked to be determined:",
     .input_cue = "Type:"},
    {.name = "samsum",
     .metric = Metric::kRougeL,
     .max_answer_tokens = 128,
     .first_line_only = true,
     .kind = ContextKind::kExamples,
     .part = "Dialogue: ",
     .intro = "Summarize the dialogue into a few short sentences. The following are some examples.\n\n",
     .ask = "\n\n{input}",
     .early_label = "The following are some examples.\n\n",
     .early_ask = "This is the dialogue to summarize.\n{input}",
     .early_cue = "Summary of the dialogue that was asked to be summarized:",
     .input_cue = "Summary:"},
};

}  // namespace

std::span<const DatasetSpec> Datasets() { return kDatasets; }

const DatasetSpec* FindDataset(std::string_view name) {
  for (const DatasetSpec& dataset : kDatasets) {
    if (dataset.name == name) return &dataset;
  }
  return nullptr;
}

std::string DatasetNames() {
  std::string names;
  for (const DatasetSpec& dataset : kDatasets) {
    if (!names.empty()) names += ", ";
    names += dataset.name;
  }
  return names;
}

}  // namespace loopserve::eval
