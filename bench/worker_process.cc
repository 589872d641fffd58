#include "bench/worker_process.h"

#include "bench/worker_protocol.h"

namespace loopserve::bench {

Result<std::unique_ptr<WorkerProcess>> WorkerProcess::Start(const std::vector<std::string>& command,
                                                            const EngineSpec& spec, std::chrono::milliseconds timeout,
                                                            const std::atomic<bool>* cancel) {
  LS_ASSIGN_OR_RETURN(auto child, ChildProcess::Start(command, cancel));
  std::unique_ptr<WorkerProcess> worker(new WorkerProcess(std::move(child), timeout));
  WorkerRequest load{.operation = WorkerRequest::Operation::kLoad, .spec = spec};
  LS_ASSIGN_OR_RETURN(const std::string reply, worker->child_->Ask(EncodeRequest(load), timeout));
  LS_RETURN_IF_ERROR(DecodeReply(reply));
  return worker;
}

Status WorkerProcess::Prepare(std::span<const Token> context) {
  WorkerRequest request{.operation = WorkerRequest::Operation::kPrepare};
  request.tokens.assign(context.begin(), context.end());
  LS_ASSIGN_OR_RETURN(const std::string reply, child_->Ask(EncodeRequest(request), timeout_));
  return DecodeReply(reply);
}

Result<RunFigures> WorkerProcess::Run(std::span<const Token> prompt, int gen_tokens) {
  WorkerRequest request{.operation = WorkerRequest::Operation::kRun, .gen_tokens = gen_tokens};
  request.tokens.assign(prompt.begin(), prompt.end());
  LS_ASSIGN_OR_RETURN(const std::string reply, child_->Ask(EncodeRequest(request), timeout_));
  return DecodeRunReply(reply);
}

}  // namespace loopserve::bench
