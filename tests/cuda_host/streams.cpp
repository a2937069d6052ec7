/* Streams, events and graphs. Work waits in its stream's queue until something has to wait for it, or (drawn at random) runs as
 * soon as it is enqueued; an event is a position in a queue, a graph the work that a capture kept. */
#include <algorithm>
#include <deque>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cuda_host/internal.h"

namespace qem_runner {
namespace {

struct Stream {
    int device = 0;
    bool blocking = true; /* ordered with the legacy stream */
    std::deque<Work> queue;
    uint64_t enqueued = 0, done = 0;
    bool capturing = false, broken = false; /* broken: a call that capture forbids has been made */
    std::vector<Work> captured;
};

struct Event {
    Stream *stream = nullptr;
    uint64_t position = 0; /* that much of the stream's work comes before it */
};

struct Graph {
    std::vector<Work> work;
};

std::set<Stream *> streams;
std::set<Event *> events;
Stream legacy;
thread_local bool enqueue_only = false;
thread_local cudaStream_t only_stream = nullptr;

/* The stream of a handle, or null for one that is none. */
Stream *lookup(cudaStream_t handle)
{
    if (handle == nullptr || handle == cudaStreamLegacy) return &legacy;
    Stream *const s = reinterpret_cast<Stream *>(handle);
    return streams.count(s) ? s : nullptr;
}

void run_until(Stream &s, uint64_t position)
{
    while (s.done < position && !s.queue.empty()) {
        const Work work = std::move(s.queue.front());
        s.queue.pop_front();
        s.done++;
        const Open open;
        work();
    }
}

void run_all(Stream &s)
{
    run_until(s, s.enqueued);
}

} // namespace

std::recursive_mutex mutex;

Call::Call(const char *name, int effects)
{
    const char *const effect = effects & kAllocates      ? " allocates or frees"
                               : effects & kSynchronizes ? " synchronizes"
                                                         : " loads a kernel";
    if (enqueue_only && effects) fail(std::string(name) + effect + " where work may only be enqueued");
    if (!machine().driver) error = cudaErrorInsufficientDriver;
    else if (machine().devices == 0) error = cudaErrorNoDevice;
    for (Stream *s : streams) {
        if (!s->capturing || !(effects & (kAllocates | kSynchronizes))) continue;
        s->broken = true;
        error = cudaErrorStreamCaptureUnsupported;
    }
    remember(error);
}

void run_everything()
{
    for (Stream *s : streams) run_all(*s);
}

cudaError_t enqueue(const char *name, cudaStream_t handle, Work work)
{
    Stream *const s = lookup(handle);
    if (!s) return remember(cudaErrorInvalidResourceHandle);
    if (enqueue_only && handle != only_stream) fail(std::string(name) + " on another stream than the caller's");
    if (s->capturing) {
        s->captured.push_back(std::move(work));
        return cudaSuccess;
    }
    if (s == &legacy) { /* waits for all blocking streams, and they for it: it runs at once */
        for (Stream *other : streams) {
            if (other->capturing && other->blocking) {
                other->broken = true;
                return remember(cudaErrorStreamCaptureImplicit);
            }
        }
        for (Stream *other : streams) {
            if (other->blocking) run_all(*other);
        }
    }
    s->queue.push_back(std::move(work));
    s->enqueued++;
    if (s == &legacy || random_below(2)) run_all(*s);
    return cudaSuccess;
}

void run_stream(cudaStream_t handle)
{
    if (Stream *const s = lookup(handle)) run_all(*s);
}

bool is_capturing(cudaStream_t handle)
{
    const Stream *const s = lookup(handle);
    return s && s->capturing;
}

bool stream_is_here(cudaStream_t handle)
{
    const Stream *const s = lookup(handle);
    return s && (s == &legacy || s->device == device_of_thread());
}

EnqueueOnly::EnqueueOnly(cudaStream_t stream)
{
    if (enqueue_only) fail("two scopes that only enqueue, one in the other");
    enqueue_only = true;
    only_stream = stream;
}

EnqueueOnly::~EnqueueOnly()
{
    enqueue_only = false;
}

} // namespace qem_runner

using namespace qem_runner;

/* --- streams, events --- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    const Call call("cudaStreamCreate", kAllocates);
    if (call.error) return call.error;
    Stream *const s = new Stream;
    s->device = device_of_thread();
    s->blocking = !(flags & cudaStreamNonBlocking);
    streams.insert(s);
    *stream = reinterpret_cast<cudaStream_t>(s);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    const Call call("cudaStreamDestroy", kAllocates);
    if (call.error) return call.error;
    Stream *const s = lookup(stream);
    if (!s || s == &legacy) return remember(cudaErrorInvalidResourceHandle);
    run_all(*s); /* what is queued still runs */
    for (Event *e : events) {
        if (e->stream == s) e->stream = nullptr;
    }
    streams.erase(s);
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    const Call call("cudaStreamSynchronize", kSynchronizes);
    if (call.error) return call.error;
    Stream *const s = lookup(stream);
    if (!s) return remember(cudaErrorInvalidResourceHandle);
    run_all(*s);
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    const Call call("cudaStreamQuery");
    if (call.error) return call.error;
    const Stream *const s = lookup(stream);
    if (!s) return remember(cudaErrorInvalidResourceHandle);
    return s->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaDeviceSynchronize()
{
    const Call call("cudaDeviceSynchronize", kSynchronizes);
    if (!call.error) run_everything();
    return call.error;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    const Call call("cudaEventCreate", kAllocates);
    if (call.error) return call.error;
    Event *const e = new Event;
    events.insert(e);
    *event = reinterpret_cast<cudaEvent_t>(e);
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    const Call call("cudaEventDestroy", kAllocates);
    if (call.error) return call.error;
    Event *const e = reinterpret_cast<Event *>(event);
    if (!events.erase(e)) return remember(cudaErrorInvalidResourceHandle);
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    const Call call("cudaEventRecord");
    if (call.error) return call.error;
    Stream *const s = lookup(stream);
    Event *const e = reinterpret_cast<Event *>(event);
    if (!s || !events.count(e)) return remember(cudaErrorInvalidResourceHandle);
    *e = {s, s->enqueued};
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    const Call call("cudaStreamWaitEvent");
    if (call.error) return call.error;
    const Event *const e = reinterpret_cast<Event *>(event);
    if (!events.count(const_cast<Event *>(e))) return remember(cudaErrorInvalidResourceHandle);
    return enqueue("cudaStreamWaitEvent", stream, [at = *e] {
        if (at.stream == &legacy || streams.count(at.stream)) run_until(*at.stream, at.position);
    });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    const Call call("cudaEventSynchronize", kSynchronizes);
    if (call.error) return call.error;
    Event *const e = reinterpret_cast<Event *>(event);
    if (!events.count(e)) return remember(cudaErrorInvalidResourceHandle);
    if (e->stream) run_until(*e->stream, e->position);
    return cudaSuccess;
}

/* Time is not modelled: every piece of work of the stream takes a millisecond. */
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t begin, cudaEvent_t end)
{
    const Call call("cudaEventElapsedTime");
    if (call.error) return call.error;
    const Event *const from = reinterpret_cast<Event *>(begin), *const to = reinterpret_cast<Event *>(end);
    if (!events.count(const_cast<Event *>(from)) || !events.count(const_cast<Event *>(to)) || !from->stream ||
        from->stream != to->stream)
        return remember(cudaErrorInvalidResourceHandle);
    if (std::max(from->position, to->position) > to->stream->done) return cudaErrorNotReady;
    *milliseconds = static_cast<float>(to->position) - static_cast<float>(from->position);
    return cudaSuccess;
}

/* --- capture: the work is kept and runs when the graph is launched --- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    const Call call("cudaStreamBeginCapture");
    if (call.error) return call.error;
    Stream *const s = lookup(stream);
    if (!s || s == &legacy || s->capturing) return remember(cudaErrorStreamCaptureUnsupported);
    s->capturing = true;
    s->broken = false;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status)
{
    const Call call("cudaStreamIsCapturing");
    if (call.error) return call.error;
    const Stream *const s = lookup(stream);
    if (!s) return remember(cudaErrorInvalidResourceHandle);
    *status = !s->capturing ? cudaStreamCaptureStatusNone
              : s->broken   ? cudaStreamCaptureStatusInvalidated
                            : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    const Call call("cudaStreamEndCapture");
    if (call.error) return call.error;
    *graph = nullptr;
    Stream *const s = lookup(stream);
    if (!s || !s->capturing) return remember(cudaErrorInvalidValue);
    const std::vector<Work> work = std::exchange(s->captured, {});
    s->capturing = false;
    if (s->broken) return remember(cudaErrorStreamCaptureInvalidated);
    *graph = reinterpret_cast<cudaGraph_t>(new Graph{work});
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long)
{
    const Call call("cudaGraphInstantiate", kAllocates);
    if (call.error) return call.error;
    *executable = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph *>(graph)));
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    const Call call("cudaGraphLaunch");
    cudaError_t error = call.error;
    for (const Work &work : reinterpret_cast<Graph *>(executable)->work) {
        if (!error) error = enqueue("cudaGraphLaunch", stream, work);
    }
    return error;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    delete reinterpret_cast<Graph *>(executable);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete reinterpret_cast<Graph *>(graph);
    return cudaSuccess;
}
