// The loaded model, and the dialogues held with it. An Engine is one model in memory with its compute threads; a
// Session is one dialogue: a mutable timeline of tokens whose KV is kept in full.
//
// Life of a turn: the caller renders the whole dialogue to tokens (RenderChat), hands them to Session::Sync, which
// finds what it already holds and computes only the rest, and calls Session::Generate, which streams the answer.
//
// Thread rule: const methods of Engine are thread-safe, but for StepAnswers. All sessions of an engine share its
// compute threads: calls that compute (Sync, Generate, Replay, Fork(policy), Answer's Next and Stop, StepAnswers) must
// not overlap; call them from one thread, or hold a lock around them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "loopserve/policy.h"
#include "loopserve/sampling.h"
#include "loopserve/status.h"

namespace loopserve {

using Token = int32_t;
struct AttentionInspector;  // loopserve/inspect.h

/// How prefill's matrix products are computed. Decode multiplies the weights as they are stored.
enum class LinearPath : uint8_t {
  kAuto,       ///< kBf16 where the CPU multiplies bf16 natively, else kF32 where oneDNN is built in, else kQuantized
  kQuantized,  ///< ggml's quantised kernels: activations are rounded to 8 bits, as in llama.cpp
  kF32,        ///< weights dequantised once per layer, f32 products
  kBf16,       ///< weights dequantised once per layer, bf16 products with f32 sums
  kInt8,       ///< both rounded to 8 bits in groups of 32, exact sums of a group: fastest; needs AVX512_VNNI
};

/// How keys and values are kept: 2 bytes an element, or 34 bytes for 32.
enum class KvPrecision : uint8_t { kF16, kQ8_0 };

/// "auto", "quantized", "f32", "bf16" or "int8"; kInvalidArgument otherwise.
Result<LinearPath> ParseLinearPath(const std::string& name);
/// "f16" or "q8_0"; kInvalidArgument otherwise.
Result<KvPrecision> ParseKvPrecision(const std::string& name);

struct EngineOptions {
  std::string model_path;
  /// Compute threads; 0 = one for each physical core that the process may use: its CPUs, its control group's quota.
  int threads = 0;
  /// Longest dialogue in tokens; 0 = the model's own context length.
  int64_t max_context_tokens = 0;
  KvPrecision kv_precision = KvPrecision::kF16;
  LinearPath linear_path = LinearPath::kAuto;
  /// Limit for the KV of all sessions together, in bytes, with what policies keep beside it; looked at before memory is
  /// taken. 0 = none.
  size_t kv_budget_bytes = 0;
  /// Dequantised weights kept between prefills, in bytes. More makes short prefills faster; 0 keeps none.
  size_t weight_cache_bytes = size_t{256} << 20;
};

struct ModelInfo {
  std::string family;  ///< "llama", "qwen2", ...
  std::string name;
  std::string description;  ///< for people: name, parameters, quantisation
  int64_t n_parameters = 0;
  int64_t n_layer_parameters = 0;  ///< in the matrices that every token passes: no embedding table, no output matrix
  size_t file_bytes = 0;
  int64_t context_tokens = 0;  ///< the limit in force: the smaller of the model's and the option's
  int n_layers = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int n_vocab = 0;
  std::vector<int64_t> layer_windows;  ///< of each layer: keys of its sliding window, 0 without one
  size_t kv_bytes_per_token = 0;
  bool has_chat_template = false;
  LinearPath linear_path = LinearPath::kAuto;  ///< the path that kAuto became
  int threads = 0;
};

/// A tool that an answer wants called, or that one in the dialogue's past did.
struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  ///< a JSON object
};

struct ChatMessage {
  std::string role;
  std::string content;
  std::vector<ToolCall> tool_calls;  ///< of the assistant
  std::string tool_call_id;          ///< which of them a tool's message answers
  std::string name;                  ///< of the tool that answers
};

/// A dialogue as a chat template sees it.
struct ChatInput {
  std::span<const ChatMessage> messages;
  bool add_generation_prompt = true;
  std::string tools;  ///< a JSON list of tools in OpenAI's form; empty: none
};

/// A rendered dialogue, not bound to any session yet. A value; const methods are thread-safe.
class RenderedPrompt {
 public:
  struct Text;
  explicit RenderedPrompt(std::shared_ptr<const Text> text);
  /// As tokenized when nothing is held.
  std::span<const Token> tokens() const;
  /// The same with tokens of a session where they spell the same text: RenderChat's `held`.
  std::vector<Token> With(std::span<const Token> held) const;

 private:
  std::shared_ptr<const Text> text_;
};

/// How a model's chat template writes a tool call: `begin`, calls with `separator` between them, `end`; each is a JSON
/// object of a name and arguments.
struct ToolCallForm {
  bool shows_tools = false;  ///< the template itself tells the model which tools there are
  std::string begin, separator, end;
  std::string before_name, before_arguments,
      after_arguments;  ///< what stands around the two: {"name": ", ", "arguments": , }
};

/// How a call that computes is watched and stopped. Everything may be left empty.
struct RunControl {
  /// Set it from any thread (or a signal handler): Sync and Replay return kCancelled soon, keeping what was completed;
  /// an answer ends with StopReason::kCancelled.
  const std::atomic<bool>* cancel = nullptr;
  /// Called now and then while a prompt is read, with the share done in [0, 1].
  std::function<void(double)> on_progress;
  /// Called as often as on_progress, and every 50 ms or so in the attention of a long prompt, on the calling thread, at
  /// a point where other sessions of the engine may compute: their answers' steps (Answer::Next, Engine::StepAnswers),
  /// and Sync of shorter prompts, so that nobody waits for a long one. Calls may nest, as that Sync may yield too: at
  /// most three prompts are on their way at once, and a fourth of more than 8 new tokens gets kInvalidArgument.
  /// Sessions that are reading a prompt must not be touched. The rest of the prompt is computed as if nothing had
  /// happened in between.
  std::function<void()> yield;
  /// Compare what a sparse policy computes with dense attention on some rows. Takes time: elapsed_ms then says nothing
  /// about speed, attention_ms and selection_ms still do.
  bool measure_quality = false;
  /// Sync looks at the attention of the new tokens, and adds what it saw; what is computed stays the same. Takes time,
  /// as measure_quality does. kInvalidArgument and kUnsupported for options that do not fit the model. May be null.
  AttentionInspector* inspector = nullptr;
};

/// How Sync made the session equal to the given tokens.
enum class SyncKind : uint8_t {
  kExtend,   ///< all held tokens were a prefix: only new ones were computed
  kRewind,   ///< the history differs from some token on: what came before was kept
  kRebuild,  ///< nothing could be kept
};

struct SyncStats {
  SyncKind kind = SyncKind::kExtend;
  int64_t prompt_tokens = 0;  ///< tokens given
  int64_t cached_tokens = 0;  ///< of these, taken from what the session held
  int64_t new_tokens = 0;     ///< of these, computed now
  double elapsed_ms = 0;      ///< the whole call
  double linear_ms = 0;       ///< matrix products, norms, activations
  double attention_ms = 0;
  double selection_ms = 0;  ///< choosing what to compute (0 for dense)
  /// Computed query-key pairs / causal pairs, over all layers and heads; 1 for dense. Empty if nothing was computed.
  std::optional<double> prefill_density;
  /// Share of attention weight recovered on rows that did not take part in the choice: mean over rows, heads and layers
  /// that were not dense. Empty unless RunControl::measure_quality asked for it, as are the next four.
  std::optional<double> coverage_heldout;
  /// |sparse - dense| / |dense| of the attention output of those rows: mean, and the value that a tenth of them exceed.
  std::optional<double> output_error;
  std::optional<double> output_error_p90;
  /// The floor of those rows, from their exact weights: the fewest keys that hold PrefillSettings::alpha of a row's
  /// weight / the keys that it could attend, over all these rows; and the mean output error where each row attends
  /// these keys alone. No choice that holds as much in every row can compute less.
  std::optional<double> floor_density;
  std::optional<double> floor_error;
};

enum class StopReason : uint8_t { kEndOfText, kStopString, kMaxTokens, kContextFull, kCancelled };

struct GenerationStats {
  std::string text;
  StopReason stop_reason = StopReason::kEndOfText;
  int64_t output_tokens = 0;
  double elapsed_ms = 0;      ///< from the call to the last token
  double first_token_ms = 0;  ///< from the call to the first token
  double tpot_ms = 0;         ///< (elapsed - first token) / (output tokens - 1); 0 with fewer than two tokens
  std::vector<float> itl_ms;  ///< from each token to the next: output tokens - 1 values
  double linear_ms = 0;
  double attention_ms = 0;
  double selection_ms = 0;
  /// KV rows read / KV rows held, mean over steps, codes of keys counted by their bytes; 1 for dense. Empty if no step
  /// was computed.
  std::optional<double> decode_kv_fraction;
  /// How often keys were chosen anew, each layer of each step for itself; 0 for dense.
  int64_t reselections = 0;
  /// True attention weight of the coming tokens on the keys that they read exactly, mean over tokens, layers and heads;
  /// and the mean of the head that a tenth of all do worse than. Empty unless RunControl::measure_quality asked for it.
  std::optional<double> decode_coverage;
  std::optional<double> decode_coverage_p10;
};

/// What one step of an answer brought.
struct AnswerStep {
  Token token = -1;    ///< the token drawn, an end-of-text token included; -1: none, the answer had to end
  std::string text;    ///< what may be shown now: whole UTF-8 characters that no stop string can take back
  bool ended = false;  ///< there are no more steps: Answer::stats() are complete
};

/// Called with each piece of the answer: whole UTF-8 characters only. Return false to stop (StopReason::kCancelled).
using TextCallback = std::function<bool(std::string_view)>;
/// Called for every new row of a Sync, in order: the row's position and its logits, f32 [n_vocab], valid in the call.
using LogitsCallback = std::function<void(int64_t position, std::span<const float> logits)>;

class AnswerImpl;
class SessionImpl;
class EngineImpl;
struct SessionAccess;

/// An answer that is written in steps of one token, so that one thread can write several in turn. Until it is
/// destroyed its session must live and must not be changed (Session may be moved, forked and looked at).
class Answer {
 public:
  explicit Answer(std::unique_ptr<AnswerImpl> impl);
  ~Answer();
  Answer(Answer&&) noexcept;
  Answer& operator=(Answer&&) noexcept;

  /// Computes what the last token made necessary, and draws the next: Session::logits() are then those that it was
  /// drawn from, before penalties. Errors: kResourceExhausted (the step may be tried again), kInternal;
  /// kInvalidArgument after the answer has ended.
  Result<AnswerStep> Next();
  /// Ends the answer as it is (StopReason::kCancelled) and gives the text that was held back. kResourceExhausted (it
  /// may be tried again).
  Result<AnswerStep> Stop();
  /// The figures so far.
  GenerationStats stats() const;

 private:
  friend class Engine;
  std::unique_ptr<AnswerImpl> impl_;
};

/// One dialogue. Movable; destroying it frees its KV blocks (those that no fork shares).
class Session {
 public:
  explicit Session(std::unique_ptr<SessionImpl> impl);
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  /// Makes the session hold exactly `prompt` (the whole dialogue so far): keeps the longest common prefix, forgets what
  /// follows it, computes the rest. Afterwards logits() are those of the last token. The last token is computed anew
  /// where the session held all of them without its logits.
  /// Errors: kInvalidArgument (empty prompt, a token outside the vocabulary), kContextLength (says both numbers; the
  /// session is unchanged), kResourceExhausted and kCancelled (the common prefix is kept).
  Result<SyncStats> Sync(std::span<const Token> prompt, const RunControl& control = {},
                         const LogitsCallback& on_logits = {});

  /// Writes the answer that follows the synced tokens. The session holds the answer's tokens afterwards (the last one
  /// when its KV was needed). Errors: kInvalidArgument (bad parameters, a bad form, or nothing was synced),
  /// kUnsupported (the form), kResourceExhausted, kInternal.
  Result<GenerationStats> Generate(const SamplingParams& params, const TextCallback& on_text = {},
                                   const RunControl& control = {});

  /// Begins such an answer, to be written step by step; control.cancel must outlive it. Errors: those of Generate.
  Result<Answer> BeginAnswer(const SamplingParams& params, const RunControl& control = {});

  /// Computes an answer that is already known as Generate would have computed it, one token after the other (teacher
  /// forcing): what a policy's decoding does to a given text. on_logits sees, in order, the logits that each of
  /// `answer`'s tokens would have been drawn from, with that token's position: the first come from the Sync before.
  /// The session holds all tokens of the answer afterwards. Errors: kInvalidArgument (a token outside the vocabulary,
  /// nothing was synced), kContextLength, kResourceExhausted, kCancelled (what was computed is kept).
  Result<GenerationStats> Replay(std::span<const Token> answer, const RunControl& control = {},
                                 const LogitsCallback& on_logits = {});

  /// A second dialogue with the same past, sharing the KV blocks they have in common. What reads the fork alone
  /// (loopserve/session_store.h saves it) may do so on another thread while this one goes on.
  Session Fork() const;

  /// A dialogue under another policy with the same past, as if that policy had read it: bit for bit what a session of
  /// `policy` would be after the same Sync. What the policy does at the end of a prefill (coding keys, dropping them)
  /// is done in this call, so its time is that of the call. Exact, and allowed, only where all of this holds:
  /// - this session's policy reads everything when it decodes, and its prefill computes what `policy`'s would
  ///   (Policy::SharesPrefill);
  /// - it holds what one Sync gave an empty session and nothing else: no answer, no second turn, nothing rewound;
  /// - it was opened for `policy` (Engine::NewSharedPrefill), or `policy` needs to know nothing but keys and values.
  /// Errors: kInvalidArgument says which of these does not; kResourceExhausted.
  Result<Session> Fork(const Policy& policy) const;

  const Policy& policy() const;
  /// The tokens whose KV is held.
  std::span<const Token> tokens() const;
  /// Logits after the last token, f32 [n_vocab]; empty before the first Sync, and after one that failed while it
  /// computed.
  std::span<const float> logits() const;
  /// Bytes of KV this session refers to, with what its policy keeps beside it (codes of keys, bounds of pages, copies),
  /// and of those that no fork shares.
  size_t kv_bytes() const;
  size_t exclusive_kv_bytes() const;

 private:
  friend struct SessionAccess;
  std::unique_ptr<SessionImpl> impl_;
};

class Engine {
 public:
  /// Loads a GGUF model. Errors: kNotFound, kCorruptData, kUnsupported (names the family and the supported ones),
  /// kInvalidArgument (options), kResourceExhausted.
  static Result<std::shared_ptr<Engine>> Open(const EngineOptions& options);
  explicit Engine(std::shared_ptr<EngineImpl> impl);
  ~Engine();

  const ModelInfo& model() const;
  /// What counts against the KV budget now, and what one block of 256 tokens takes: a session takes whole blocks.
  size_t kv_used_bytes() const;
  size_t kv_block_bytes() const;
  /// About what a session of so many tokens takes under a policy: whole blocks, and what the policy keeps beside them.
  size_t kv_bytes_for(const Policy& policy, int64_t n_tokens) const;
  /// Opens an empty dialogue.
  Session NewSession(const Policy& policy = {}) const;
  /// Opens an empty dialogue that reads a prompt once for several policies: Sync it, then Fork it under each of them.
  /// It answers as the first one's prefill and dense decoding would. kInvalidArgument: there are none, or their
  /// prefills differ.
  Result<Session> NewSharedPrefill(std::span<const Policy> policies) const;

  /// One step of several answers, of different sessions of this engine: to each what its Next would have given, bit for
  /// bit, whatever their policies and lengths; but the weights are read once for all of them, so that the answers of
  /// several dialogues take little longer than one. In the order of `answers`; one that fails or ends does not hold up
  /// the others. Beside the errors of Next: kInvalidArgument for an answer of another engine, and for all but the first
  /// of a session. Steps that share a pass count its whole time each; answers that measure quality, and models with
  /// matrices of a type that only ggml multiplies (f32, f16, bf16, q2_K, q3_K, i-quants), are computed one by one.
  std::vector<Result<AnswerStep>> StepAnswers(std::span<Answer* const> answers) const;

  /// Text to tokens. add_special: begin-of-text where the model wants one. parse_special: texts such as <|im_start|>
  /// become control tokens; leave it off for text that a user wrote.
  Result<std::vector<Token>> Tokenize(std::string_view text, bool add_special, bool parse_special) const;
  /// Tokens to text (may end within a UTF-8 character). Unknown ids give nothing; control tokens nothing unless asked.
  std::string Detokenize(std::span<const Token> tokens, bool show_special = false) const;
  bool IsEndOfText(Token token) const;

  /// Renders a dialogue with the model's chat template and tokenizes it; what users wrote can never become a control
  /// token. held: the tokens of the session that this is for, if any: where they spell the same text they are used as
  /// they are, so that a generated answer is found in the cache even if it would tokenize differently.
  /// Errors: kUnsupported (no template), kInvalidArgument (the template refused these messages; its own words).
  Result<std::vector<Token>> RenderChat(std::span<const ChatMessage> messages, bool add_generation_prompt = true,
                                        std::span<const Token> held = {}) const;
  /// The same in two steps, for callers that look for the session in between. Errors too where tools or arguments are
  /// not JSON.
  Result<RenderedPrompt> Render(const ChatInput& input) const;
  /// How the chat template writes tool calls; null where it does not, or in a form that is not one JSON object a call.
  const ToolCallForm* tool_call_form() const;
  /// Whether answers can be given this form. kInvalidArgument and kUnsupported say why not.
  Status CheckForm(const AnswerForm& form) const;

 private:
  friend struct SessionAccess;
  std::shared_ptr<EngineImpl> impl_;
};

}  // namespace loopserve
