// How the speed table talks to the helper processes that hold one engine each. One JSON object a line each way:
//   {"op":"load","engine","policy","model","threads","max_tokens","kv","linear_path"}  -> {"ok":true}
//   {"op":"prepare","context":[ids]}                                                   -> {"ok":true}
//   {"op":"run","prompt":[ids],"gen_tokens":n}   -> {"ok":true,"ttft_ms","tpot_ms","output":[ids],...} (RunFigures)
// An error is {"ok":false,"code":"unsupported"|"invalid_argument"|...,"error":"..."}; the helper then waits on.
// A helper computes only between a request and its reply. openvino_peer.py speaks it too.
// Thread rule: pure functions.
#pragma once

#include <string>
#include <string_view>

#include "bench/measured_engine.h"
#include "loopserve/status.h"

namespace loopserve::bench {

struct WorkerRequest {
  enum class Operation { kLoad, kPrepare, kRun };
  Operation operation = Operation::kLoad;
  EngineSpec spec;            ///< of kLoad
  std::vector<Token> tokens;  ///< the context of kPrepare, the prompt of kRun
  int gen_tokens = 0;         ///< of kRun
};

std::string EncodeRequest(const WorkerRequest& request);
/// kInvalidArgument says what is wrong.
Result<WorkerRequest> DecodeRequest(std::string_view line);

std::string EncodeReply(const Status& status);
std::string EncodeReply(const RunFigures& figures);
/// The status that a reply carries; kCorruptData if it is none.
Status DecodeReply(std::string_view line);
/// The figures that a reply carries, or the error.
Result<RunFigures> DecodeRunReply(std::string_view line);

}  // namespace loopserve::bench
