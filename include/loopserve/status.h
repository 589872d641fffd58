// Errors as values. Whatever a user, a file or a client can cause comes back as a Status or a Result<T>;
// exceptions never cross a module's border, and a bug in this library is a failed LS_CHECK (src/base/check.h).
// Thread rule: values; no shared state.
#pragma once

#include <optional>
#include <string>
#include <utility>

namespace loopserve {

enum class StatusCode {
  kOk = 0,
  kInvalidArgument,    ///< the caller asked for something that makes no sense
  kNotFound,           ///< no such file, model or name
  kUnsupported,        ///< well-formed, but not something this library does
  kCorruptData,        ///< a file or message is damaged or hostile
  kContextLength,      ///< more tokens than the model's context, or than the engine's limit
  kResourceExhausted,  ///< out of memory, of disk or of a configured budget
  kCancelled,          ///< the caller's cancel flag was seen
  kIoError,            ///< the operating system or the network refused
  kInternal,           ///< a bug; please report
};

/// The outcome of an operation: kOk, or a code and a sentence that says what to do.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}
  static Status Ok() { return Status(); }

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  /// The same error with `context` and ": " put before its message.
  Status WithContext(const std::string& context) const {
    return ok() ? *this : Status(code_, context + ": " + message_);
  }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

/// A value, or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    if (status_.ok()) status_ = Status(StatusCode::kInternal, "a Result was made from an ok Status without a value");
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  /// Precondition: ok().
  T& value() & { return value_.value(); }
  const T& value() const& { return value_.value(); }
  T&& value() && { return std::move(value_).value(); }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  Status status_;
  std::optional<T> value_;
};

}  // namespace loopserve

#define LS_CONCAT_INNER(a, b) a##b
#define LS_CONCAT(a, b) LS_CONCAT_INNER(a, b)

/// Returns from the enclosing function when `expression` (a Status) is an error.
#define LS_RETURN_IF_ERROR(expression)                                                   \
  do {                                                                                   \
    if (::loopserve::Status ls_status = (expression); !ls_status.ok()) return ls_status; \
  } while (false)

/// `LS_ASSIGN_OR_RETURN(auto x, MakeX());` binds the value, or returns the error from the enclosing function.
#define LS_ASSIGN_OR_RETURN(declaration, expression) \
  LS_ASSIGN_OR_RETURN_INNER(LS_CONCAT(ls_result_, __LINE__), declaration, expression)
#define LS_ASSIGN_OR_RETURN_INNER(result, declaration, expression) \
  auto result = (expression);                                      \
  if (!result.ok()) return result.status();                        \
  declaration = std::move(result).value()
