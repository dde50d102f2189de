// Streams, captures, graphs and events.

#include <memory>
#include <utility>

#include "driver.h"

namespace fake {

using Clock = std::chrono::steady_clock;

struct Event {
    unsigned flags;  // 2: without a time
    bool recorded = false;
    Clock::time_point when{};
    Capture* captured_in = nullptr;  // recorded last on this capture, which is still on
    Stream* stream = nullptr;
    std::uint64_t position = 0;
    Stream* late = nullptr;  // recorded last on this late stream, once so much of its work has run
    std::uint64_t due = 0;
};

static std::vector<Capture*> captures;
static std::vector<Event*> events;
static std::vector<Stream*> late_streams;
static thread_local bool makes_late = false;

void set_late(bool late) { makes_late = late; }

static Stream* stream_of(void* handle) {
    // Null, and the two numbers CUDA reserves for default streams.
    return reinterpret_cast<std::uintptr_t>(handle) <= 2 ? nullptr : static_cast<Stream*>(handle);
}

// What this thread asks for: 0 nothing unsafe while any global capture is on, 1 while one of its own is, 2 anything goes.
static thread_local int thread_mode = 0;

CUresult outside_capture(bool relaxed) {
    Held held(lock);
    CUresult result = CUDA_SUCCESS;
    for (Capture* capture : captures) {
        bool mine = capture->thread == std::this_thread::get_id(), global = capture->mode == 0 && thread_mode == 0;
        if (!(mine || global) || (relaxed && (capture->mode == 2 || thread_mode == 2))) continue;
        capture->invalid = true;
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return result;
}

CUresult submit(void* handle, Work work) {
    {
        Held held(lock);
        CUresult result = usable();
        if (result != CUDA_SUCCESS) return result;
        Stream* stream = stream_of(handle);
        if (stream != nullptr && stream->capture != nullptr) {
            if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
            stream->capture->graph.nodes.push_back(std::move(work));
            ++stream->recorded;
            return CUDA_SUCCESS;
        }
        if (stream != nullptr && stream->late) {
            stream->pending.push_back(std::move(work));
            ++stream->submitted;
            return CUDA_SUCCESS;
        }
        for (Capture* capture : captures) {
            // The default stream waits for every stream that does not say otherwise.
            if (stream == nullptr && (capture->origin->flags & 1) == 0) {
                capture->invalid = true;
                return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
            }
        }
    }
    return work();
}

// Runs the work of a late stream until the first `due` of all it was ever given have run; what went wrong first.
static CUresult run_until(Stream* stream, std::uint64_t due) {
    CUresult first = CUDA_SUCCESS;
    for (;;) {
        Work work;
        {
            Held held(lock);
            if (stream->submitted - stream->pending.size() >= due) return first;
            work = std::move(stream->pending.front());
            stream->pending.pop_front();
        }
        CUresult result = work();
        if (first == CUDA_SUCCESS) first = result;
    }
}

// Runs what this thread's late streams still have to do, before something goes that it may use.
static void catch_up() {
    std::vector<Stream*> streams;
    {
        Held held(lock);
        for (Stream* stream : late_streams) {
            if (stream->thread == std::this_thread::get_id()) streams.push_back(stream);
        }
    }
    for (Stream* stream : streams) run_until(stream, stream->submitted);
}

static void forget(Capture* capture) {
    for (Stream* stream : capture->streams) stream->capture = nullptr;
    for (Event* event : events) {
        if (event->captured_in == capture) event->captured_in = nullptr, event->recorded = false;
    }
    for (std::size_t at = 0; at < captures.size(); ++at) {
        if (captures[at] == capture) captures.erase(captures.begin() + std::ptrdiff_t(at));
    }
}

}  // namespace fake

using namespace fake;

API CUresult cuStreamCreate(void** handle, unsigned flags) {
    CUresult result = usable();
    if (result != CUDA_SUCCESS) return result;
    Held held(lock);
    auto* stream = new Stream{current(), flags, makes_late, std::this_thread::get_id()};
    if (stream->late) late_streams.push_back(stream);
    *handle = stream;
    return result;
}
API CUresult cuStreamCreateWithPriority(void** handle, unsigned flags, int) { return cuStreamCreate(handle, flags); }
API CUresult cuStreamGetPriority(void*, int* priority) { return *priority = 0, usable(); }

// Work that is still to run is lost: who destroys a stream waits for it first.
API CUresult cuStreamDestroy_v2(void* handle) {
    Held held(lock);
    Stream* stream = stream_of(handle);
    if (stream == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    for (std::size_t at = 0; at < late_streams.size(); ++at) {
        if (late_streams[at] == stream) late_streams.erase(late_streams.begin() + std::ptrdiff_t(at));
    }
    if (stream->capture != nullptr) {
        Capture* capture = stream->capture;
        forget(capture);
        delete capture;
    }
    for (Event* event : events) {
        if (event->stream == stream) event->stream = nullptr;
        if (event->late == stream) event->late = nullptr;
    }
    delete stream;
    return CUDA_SUCCESS;
}

// A captured stream is not asked whether it has finished, nor waited for.
static CUresult settled(void* handle) {
    Held held(lock);
    CUresult result = usable();
    if (result != CUDA_SUCCESS) return result;
    Stream* stream = stream_of(handle);
    if (stream != nullptr && stream->capture != nullptr) {
        stream->capture->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return CUDA_SUCCESS;
}

API CUresult cuStreamSynchronize(void* handle) {
    CUresult result = settled(handle);
    if (result == CUDA_SUCCESS) result = outside_capture(true);
    Stream* stream = stream_of(handle);
    if (result == CUDA_SUCCESS && stream != nullptr) result = run_until(stream, stream->submitted);
    if (result == CUDA_SUCCESS) result = usable();
    return result == CUDA_SUCCESS ? check_zones(current()) : result;
}
API CUresult cuStreamQuery(void* handle) {
    CUresult result = settled(handle);
    Stream* stream = stream_of(handle);
    return result == CUDA_SUCCESS && stream != nullptr && !stream->pending.empty() ? CUDA_ERROR_NOT_READY : result;
}

API CUresult cuStreamWaitEvent(void* handle, void* waited, unsigned) {
    Held held(lock);
    CUresult result = usable();
    if (result != CUDA_SUCCESS) return result;
    Stream* stream = stream_of(handle);
    auto* event = static_cast<Event*>(waited);
    Capture* of = event->captured_in;
    if (stream == nullptr) return of == nullptr ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    if (stream->capture != nullptr && of == nullptr && event->recorded) {
        stream->capture->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (of == nullptr) return event->late == nullptr ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
    if (stream->capture != nullptr && stream->capture != of) {
        stream->capture->invalid = of->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    if (stream->capture == nullptr) {
        stream->capture = of;
        stream->recorded = stream->joined = 0;
        of->streams.push_back(stream);
    }
    if (event->stream != nullptr && event->position > event->stream->joined) event->stream->joined = event->position;
    ++stream->recorded;
    return CUDA_SUCCESS;
}

API CUresult cuStreamBeginCapture_v2(void* handle, int mode) {
    Held held(lock);
    CUresult result = usable();
    if (result != CUDA_SUCCESS) return result;
    Stream* stream = stream_of(handle);
    if (stream == nullptr) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture != nullptr || mode < 0 || mode > 2) return CUDA_ERROR_INVALID_VALUE;
    stream->capture = new Capture{{}, stream, mode, std::this_thread::get_id(), false, {stream}};
    captures.push_back(stream->capture);
    return CUDA_SUCCESS;
}

API CUresult cuStreamEndCapture(void* handle, void** graph) {
    Held held(lock);
    *graph = nullptr;
    CUresult result = usable();
    if (result != CUDA_SUCCESS) return result;
    Stream* stream = stream_of(handle);
    if (stream == nullptr || stream->capture == nullptr) return CUDA_ERROR_INVALID_VALUE;
    std::unique_ptr<Capture> capture(stream->capture);
    if (capture->mode != 2 && capture->thread != std::this_thread::get_id()) {
        capture.release()->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    if (capture->origin != stream) {
        capture.release()->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    }
    bool unjoined = false;
    for (Stream* other : capture->streams) unjoined |= other != stream && other->joined != other->recorded;
    forget(capture.get());
    if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (unjoined) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    *graph = new Graph(std::move(capture->graph));
    return CUDA_SUCCESS;
}

API CUresult cuStreamIsCapturing(void* handle, int* status) {
    Held held(lock);
    Stream* stream = stream_of(handle);
    *status = stream == nullptr || stream->capture == nullptr ? 0 : stream->capture->invalid ? 2 : 1;
    return usable();
}

API CUresult cuThreadExchangeStreamCaptureMode(int* mode) {
    std::swap(*mode, thread_mode);
    return CUDA_SUCCESS;
}

// How many recordings there is memory for, where that is set.
static std::atomic<unsigned long long> instantiated{0};
static unsigned long long most_instantiated() {
    const char* text = std::getenv("PLIMSOLL_FAKE_CUDA_GRAPHS");
    return text == nullptr ? ~0ull : std::strtoull(text, nullptr, 10);
}

API CUresult cuGraphInstantiateWithFlags(void** runnable, void* graph, unsigned long long) {
    CUresult result = usable();
    if (result == CUDA_SUCCESS && instantiated.fetch_add(1) >= most_instantiated()) {
        instantiated.fetch_sub(1);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS) *runnable = new Graph(*static_cast<Graph*>(graph));
    return result;
}
API CUresult cuGraphUpload(void*, void*) { return usable(); }
API CUresult cuGraphExecDestroy(void* runnable) {
    catch_up();
    instantiated.fetch_sub(1);
    return delete static_cast<Graph*>(runnable), CUDA_SUCCESS;
}
API CUresult cuGraphDestroy(void* graph) { return delete static_cast<Graph*>(graph), CUDA_SUCCESS; }

API CUresult cuGraphGetNodes(void* graph, void** nodes, std::size_t* count) {
    auto& of = static_cast<Graph*>(graph)->nodes;
    std::size_t room = nodes == nullptr ? 0 : *count;
    for (std::size_t at = 0; at < room && at < of.size(); ++at) nodes[at] = &of[at];
    *count = of.size();
    return CUDA_SUCCESS;
}

API CUresult cuGraphLaunch(void* runnable, void* stream) {
    auto* graph = static_cast<Graph*>(runnable);
    return submit(stream, [graph] {
        ++counters.graph_launches;
        for (const Work& node : graph->nodes) {
            ++counters.graph_nodes;
            CUresult result = node();
            if (result != CUDA_SUCCESS) return result;
        }
        return CUresult(CUDA_SUCCESS);
    });
}

API CUresult cuEventCreate(void** handle, unsigned flags) {
    Held held(lock);
    CUresult result = usable();
    if (result != CUDA_SUCCESS) return result;
    events.push_back(new Event{flags});
    *handle = events.back();
    return CUDA_SUCCESS;
}

API CUresult cuEventDestroy_v2(void* handle) {
    catch_up();
    Held held(lock);
    for (std::size_t at = 0; at < events.size(); ++at) {
        if (events[at] != handle) continue;
        delete events[at];
        events[at] = events.back();
        events.pop_back();
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_HANDLE;
}

// While captured, an event is a dependency and nothing is recorded when the graph runs, unless it is EXTERNAL (1).
API CUresult cuEventRecordWithFlags(void* handle, void* on, unsigned flags) {
    Held held(lock);
    auto* event = static_cast<Event*>(handle);
    Stream* stream = stream_of(on);
    if (stream != nullptr && stream->capture != nullptr && flags != 1) {
        CUresult result = usable();
        if (result != CUDA_SUCCESS) return result;
        if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        event->captured_in = stream->capture;
        event->stream = stream;
        event->position = stream->recorded;
        return CUDA_SUCCESS;
    }
    bool late = stream != nullptr && stream->late;
    event->late = late ? stream : nullptr;
    event->due = late ? stream->submitted + 1 : 0;
    return submit(on, [event] {
        Held held(lock);
        event->captured_in = nullptr;
        event->recorded = true;
        event->when = Clock::now();
        return CUresult(CUDA_SUCCESS);
    });
}
API CUresult cuEventRecord(void* event, void* stream) { return cuEventRecordWithFlags(event, stream, 0); }

static CUresult outside(Event* event) {
    Held held(lock);
    CUresult result = usable();
    if (result != CUDA_SUCCESS) return result;
    if (event->captured_in != nullptr) {
        event->captured_in->invalid = true;
        return CUDA_ERROR_CAPTURED_EVENT;
    }
    return outside_capture(true);
}

static bool is_due(const Event* event) {
    Held held(lock);
    return event->late != nullptr && event->late->submitted - event->late->pending.size() < event->due;
}

API CUresult cuEventQuery(void* event) {
    CUresult result = outside(static_cast<Event*>(event));
    return result == CUDA_SUCCESS && is_due(static_cast<Event*>(event)) ? CUDA_ERROR_NOT_READY : result;
}
API CUresult cuEventSynchronize(void* handle) {
    auto* event = static_cast<Event*>(handle);
    CUresult result = outside(event);
    if (result == CUDA_SUCCESS && event->late != nullptr) result = run_until(event->late, event->due);
    if (result == CUDA_SUCCESS) result = usable();
    return result == CUDA_SUCCESS ? check_zones(current()) : result;
}

API CUresult cuEventElapsedTime_v2(float* milliseconds, void* start, void* end) {
    auto *from = static_cast<Event*>(start), *to = static_cast<Event*>(end);
    CUresult result = outside(from);
    if (result == CUDA_SUCCESS) result = outside(to);
    if (result != CUDA_SUCCESS) return result;
    if (!from->recorded || !to->recorded || ((from->flags | to->flags) & 2) != 0) return CUDA_ERROR_INVALID_HANDLE;
    *milliseconds = std::chrono::duration<float, std::milli>(to->when - from->when).count();
    return CUDA_SUCCESS;
}
API CUresult cuEventElapsedTime(float* milliseconds, void* start, void* end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

API CUresult cuLaunchHostFunc(void* stream, void (*call)(void*), void* argument) {
    return submit(stream, [=] { return call(argument), CUresult(CUDA_SUCCESS); });
}
