#include "bench/worker.h"

#include <string>
#include <utility>

#include "bench/worker_protocol.h"

namespace loopserve::bench {
namespace {

class Worker {
 public:
  explicit Worker(const EngineFactory& make_engine) : make_engine_(make_engine) {}

  std::string Answer(const std::string& line) {
    Result<WorkerRequest> request = DecodeRequest(line);
    if (!request.ok()) return EncodeReply(request.status());
    if (request->operation == WorkerRequest::Operation::kLoad) return EncodeReply(Load(request->spec));
    if (!engine_) return EncodeReply(Status(StatusCode::kInvalidArgument, "nothing was loaded"));
    if (request->operation == WorkerRequest::Operation::kPrepare) return EncodeReply(engine_->Prepare(request->tokens));
    if (request->gen_tokens < 1)
      return EncodeReply(Status(StatusCode::kInvalidArgument, "gen_tokens must be positive"));
    Result<RunFigures> figures = engine_->Run(request->tokens, request->gen_tokens);
    return figures.ok() ? EncodeReply(*figures) : EncodeReply(figures.status());
  }

 private:
  Status Load(const EngineSpec& spec) {
    LS_ASSIGN_OR_RETURN(engine_, make_engine_(spec));
    return Status::Ok();
  }

  const EngineFactory& make_engine_;
  std::unique_ptr<MeasuredEngine> engine_;
};

}  // namespace

void ServeWorker(std::istream& in, std::ostream& out, const EngineFactory& make_engine) {
  Worker worker(make_engine);
  for (std::string line; std::getline(in, line);) out << worker.Answer(line) << std::endl;
}

}  // namespace loopserve::bench
