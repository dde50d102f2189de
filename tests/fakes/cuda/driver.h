// The state behind the driver's entry points: devices, contexts, streams that record or run, graphs.
//
// Work runs at once, within the call that submits it, unless its stream is being captured: then it is kept, with the
// values of its arguments, and runs at each launch of the graph. A stream made by a thread that asked for it is late
// instead: its work runs when somebody waits for it, and not before. What a kernel does wrong is reported as on hardware:
// the launch succeeds, and every later call of that context fails.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

using CUresult = int;
enum : CUresult {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_IMAGE = 200,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_ILLEGAL_ADDRESS = 700,
    CUDA_ERROR_MISALIGNED_ADDRESS = 716,
    CUDA_ERROR_LAUNCH_FAILED = 719,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901,
    CUDA_ERROR_STREAM_CAPTURE_MERGE = 902,
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED = 903,
    CUDA_ERROR_STREAM_CAPTURE_UNJOINED = 904,
    CUDA_ERROR_STREAM_CAPTURE_ISOLATION = 905,
    CUDA_ERROR_STREAM_CAPTURE_IMPLICIT = 906,
    CUDA_ERROR_CAPTURED_EVENT = 907,
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD = 908,
};

using CUdeviceptr = unsigned long long;

namespace fake {

struct Device {
    int ordinal;
    std::size_t total_bytes, used_bytes = 0;
};

struct Context {
    Device* device;
    int retained = 0;
    std::atomic<CUresult> fault{CUDA_SUCCESS};  // what a kernel did wrong; it stays
};

// A step of a graph, or what a stream is to do now.
using Work = std::function<CUresult()>;

struct Graph {
    std::vector<Work> nodes;
};

struct Stream;

// A capture: what the stream it began on, and those that joined it through events, record.
struct Capture {
    Graph graph;
    Stream* origin;
    int mode;  // 0 global, 1 thread-local, 2 relaxed
    std::thread::id thread;
    bool invalid = false;
    std::vector<Stream*> streams;
};

struct Stream {
    Context* context;
    unsigned flags;  // 1: does not wait for the default stream
    bool late;       // its work waits until it is waited for
    std::thread::id thread;
    Capture* capture = nullptr;
    // Of a late stream: what is still to run, and how much was ever submitted.
    std::deque<Work> pending{};
    std::uint64_t submitted = 0;
    // Of a stream that joined a capture: what it recorded, and how much of that another stream has waited for.
    std::uint64_t recorded = 0, joined = 0;
};

// The devices that are visible, in the order of their ordinals; none before cuInit.
const std::vector<Device*>& devices();
// The compute capability of every device.
void capability(int* major, int* minor);
// The calling thread's context, or null.
Context* current();
// What a call that needs a working context returns: success, or why there is none.
CUresult usable();

// Records the work if the stream is being captured, keeps it if the stream is late, and does it now if neither.
CUresult submit(void* stream, Work work);
// Whether streams that the calling thread makes from now on are late.
void set_late(bool late);
// What a call returns that waits, or that is not safe while a capture is on: an error if one is on, which it spoils.
// `relaxed` calls may be made during relaxed captures.
CUresult outside_capture(bool relaxed);

// Device memory within one allocation?
bool is_device_memory(CUdeviceptr at, std::size_t bytes);
// Looks at the zones around every allocation of the context's device; a breach is the context's fault.
CUresult check_zones(Context* context);

// Notes what went wrong, for standard error and for fake_cuda_last_fault.
void report(const std::string& text);

struct Counters {
    std::atomic<std::uint64_t> launches{0}, graph_launches{0}, graph_nodes{0}, matmuls{0}, allocations{0};
};
extern Counters counters;
void count_launch(const char* kernel);

// One lock for all state but the memory itself; never held while a kernel runs.
extern std::recursive_mutex lock;
using Held = std::lock_guard<std::recursive_mutex>;

}  // namespace fake
