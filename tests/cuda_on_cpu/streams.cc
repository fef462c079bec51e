// Streams, events and graphs of the emulated runtime. Work waits in its stream until somebody waits for it (Options::deferred).
#include <algorithm>
#include <utility>

#include "tests/cuda_on_cpu/runtime.h"
#include "tests/cuda_on_cpu/runtime_impl.h"

namespace emulation {
namespace {

CUstream_st& default_stream() {
  static CUstream_st one;
  return one;
}

CUstream_st& at(cudaStream_t stream) { return stream == nullptr ? default_stream() : *stream; }

template <class F>
void for_streams(F&& f) {
  f(default_stream());
  for (CUstream_st* stream : runtime().streams) f(*stream);
}

/// The oldest work of a stream. False: it was at fault, and nothing else will run.
bool run_one(CUstream_st& stream) {
  const Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  try {
    work();
  } catch (const Fault& fault) {
    if (!runtime().fault) runtime().fault.emplace(fault);
    drop_all();
    return false;
  }
  return true;
}

template <class Until>
void run_until(CUstream_st& stream, Until&& until) {
  while (!until() && !stream.queue.empty())
    if (!run_one(stream)) return;
}

cudaError_t state() { return runtime().fault ? failed(cudaErrorLaunchFailure) : cudaSuccess; }

cudaError_t run(CUstream_st& stream) {
  run_until(stream, [] { return false; });
  return state();
}

}  // namespace

void drop_all() {
  for_streams([](CUstream_st& stream) { stream.queue.clear(); });
}

cudaError_t run_all() {
  for_streams([](CUstream_st& stream) { run(stream); });
  return state();
}

bool is_capturing(cudaStream_t stream) { return at(stream).capture != nullptr; }

cudaError_t forbidden_in_capture() {
  bool any = false;
  for_streams([&](CUstream_st& stream) {
    any |= stream.capture != nullptr;
    stream.spoiled |= stream.capture != nullptr;
  });
  return any ? failed(cudaErrorStreamCaptureUnsupported) : cudaSuccess;
}

cudaError_t enqueue(cudaStream_t handle, Work work) {
  CUstream_st& stream = at(handle);
  if (stream.capture != nullptr) {
    if (stream.spoiled) return failed(cudaErrorStreamCaptureInvalidated);
    stream.capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  // The default stream and the others wait for each other, but for those that do not want to.
  cudaError_t status = cudaSuccess;
  if (handle == nullptr) {
    for (CUstream_st* other : runtime().streams) {
      if (!other->waits_for_default) continue;
      if (other->capture != nullptr) return failed(cudaErrorStreamCaptureImplicit);
      run(*other);
    }
  } else if (stream.waits_for_default) {
    run(default_stream());
  }
  if (status = state(); status != cudaSuccess) return status;
  stream.queue.push_back(std::move(work));
  return options().deferred ? cudaSuccess : run(stream);
}

}  // namespace emulation

using namespace emulation;

cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t status = forbidden_in_capture(); status != cudaSuccess) return status;
  return run_all();
}

// ---- streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  *stream = new CUstream_st;
  (*stream)->waits_for_default = (flags & cudaStreamNonBlocking) == 0;
  runtime().streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (runtime().streams.count(stream) == 0) return failed(cudaErrorInvalidResourceHandle);
  const cudaError_t status = run(*stream);
  runtime().streams.erase(stream);
  delete stream;
  return status;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (is_capturing(stream)) {
    at(stream).spoiled = true;
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  return run(at(stream));
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (is_capturing(stream)) {
    at(stream).spoiled = true;
    return failed(cudaErrorStreamCaptureUnsupported);
  }
  if (!at(stream).queue.empty()) run_one(at(stream));
  if (const cudaError_t status = state(); status != cudaSuccess) return status;
  return at(stream).queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream == nullptr) return failed(cudaErrorStreamCaptureUnsupported);
  if (is_capturing(stream)) return failed(cudaErrorIllegalState);
  stream->capture = std::make_unique<CUgraph_st>();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!is_capturing(stream)) return failed(cudaErrorIllegalState);
  std::unique_ptr<CUgraph_st> captured = std::move(stream->capture);
  if (std::exchange(stream->spoiled, false)) return failed(cudaErrorStreamCaptureInvalidated);
  *graph = captured.release();
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const CUstream_st& s = at(stream);
  *status = s.capture == nullptr ? cudaStreamCaptureStatusNone
            : s.spoiled          ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

// ---- events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new CUevent_st{std::make_shared<EventState>()};
  (*event)->state->timed = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (is_capturing(stream)) return failed(cudaErrorNotSupported);  // graphs here are of one stream
  const std::shared_ptr<EventState> state = event->state;
  state->stream = &at(stream);
  const std::uint64_t number = ++state->recorded;
  return enqueue(stream, [=] {
    state->reached = number;
    state->at = std::chrono::steady_clock::now();
  });
}

namespace {

void wait_for(EventState& event, std::uint64_t number) {
  if (event.reached < number) run_until(*event.stream, [&] { return event.reached >= number; });
}

}  // namespace

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (const cudaError_t status = forbidden_in_capture(); status != cudaSuccess) return status;
  wait_for(*event->state, event->state->recorded);
  return state();
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (const cudaError_t status = forbidden_in_capture(); status != cudaSuccess) return status;
  EventState& e = *event->state;
  if (e.reached < e.recorded && !e.stream->queue.empty()) run_one(*e.stream);
  if (const cudaError_t status = state(); status != cudaSuccess) return status;
  return e.reached == e.recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (is_capturing(stream)) return failed(cudaErrorNotSupported);
  const std::shared_ptr<EventState> state = event->state;
  return enqueue(stream, [state, number = state->recorded] { wait_for(*state, number); });
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const EventState &a = *start->state, &b = *end->state;
  if (!a.timed || !b.timed || a.recorded == 0 || b.recorded == 0) return failed(cudaErrorInvalidResourceHandle);
  if (a.reached < a.recorded || b.reached < b.recorded) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(b.at - a.at).count();
  return cudaSuccess;
}

// ---- graphs

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (is_capturing(stream)) return failed(cudaErrorNotSupported);
  for (const Work& work : exec->work)
    if (const cudaError_t status = enqueue(stream, work); status != cudaSuccess) return status;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
