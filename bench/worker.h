// The other side of WorkerProcess: what a helper process of this very program does. It makes one engine and answers
// requests (worker_protocol.h) until its input ends.
#pragma once

#include <functional>
#include <istream>
#include <memory>
#include <ostream>

#include "bench/measured_engine.h"

namespace loopserve::bench {

using EngineFactory = std::function<Result<std::unique_ptr<MeasuredEngine>>(const EngineSpec&)>;

/// Answers the requests of `in` on `out`, line by line, until `in` ends. Errors of the engine are replies.
void ServeWorker(std::istream& in, std::ostream& out, const EngineFactory& make_engine);

}  // namespace loopserve::bench
