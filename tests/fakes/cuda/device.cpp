// Devices, contexts, attributes and the names of errors.
//
// PLIMSOLL_FAKE_CUDA_DEVICES    how many devices (1)
// PLIMSOLL_FAKE_CUDA_MEMORY     bytes of each (1 GiB)
// PLIMSOLL_FAKE_CUDA_GRAPHS     recordings that fit into memory at once (any number)
// PLIMSOLL_FAKE_CUDA_CAPABILITY compute capability (9.0)
// PLIMSOLL_FAKE_CUDA_SEED       the order threads run in (0)
// CUDA_VISIBLE_DEVICES          as for real ones: ordinals or the beginnings of GPU-uuid, up to the first that is wrong

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "driver.h"
#include "simt.h"

namespace fake {

std::recursive_mutex lock;
static bool ready = false;
static std::vector<Device*> visible;
static std::vector<Context*> primary;
static thread_local std::vector<Context*> stack;

const std::vector<Device*>& devices() { return visible; }
Context* current() { return stack.empty() ? nullptr : stack.back(); }

CUresult usable() {
    if (!ready) return CUDA_ERROR_NOT_INITIALIZED;
    Context* context = current();
    return context == nullptr ? CUDA_ERROR_INVALID_CONTEXT : context->fault.load();
}

static std::string uuid_text(int ordinal) {
    char text[64];
    std::snprintf(text, sizeof text, "GPU-fa4eda7a-0000-4000-8000-0000000000%02x", ordinal);
    return text;
}

static std::vector<int> visible_ordinals(int count) {
    std::vector<int> chosen;
    const char* wanted = std::getenv("CUDA_VISIBLE_DEVICES");
    if (wanted == nullptr) {
        for (int ordinal = 0; ordinal < count; ++ordinal) chosen.push_back(ordinal);
        return chosen;
    }
    std::string rest = wanted;
    while (!rest.empty()) {
        std::size_t comma = rest.find(',');
        std::string one = rest.substr(0, comma);
        rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
        int found = -1;
        for (int ordinal = 0; ordinal < count; ++ordinal) {
            bool named = one == std::to_string(ordinal) || (one.rfind("GPU-", 0) == 0 && uuid_text(ordinal).rfind(one, 0) == 0);
            if (named) found = ordinal;
        }
        if (found < 0) break;
        chosen.push_back(found);
    }
    return chosen;
}

static unsigned long long setting(const char* name, unsigned long long otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void capability(int* major, int* minor) {
    const char* text = std::getenv("PLIMSOLL_FAKE_CUDA_CAPABILITY");
    if (text == nullptr || std::sscanf(text, "%d.%d", major, minor) != 2) *major = 9, *minor = 0;
}

static Device* device(int handle) {
    return handle < 0 || handle >= int(visible.size()) ? nullptr : visible[std::size_t(handle)];
}

}  // namespace fake

using namespace fake;

API CUresult cuInit(unsigned) {
    Held held(lock);
    if (!ready) {
        const std::size_t bytes = setting("PLIMSOLL_FAKE_CUDA_MEMORY", 1ull << 30);
        for (int ordinal : visible_ordinals(int(setting("PLIMSOLL_FAKE_CUDA_DEVICES", 1)))) {
            visible.push_back(new Device{ordinal, bytes});
            primary.push_back(new Context{visible.back()});
        }
        simt::set_seed(setting("PLIMSOLL_FAKE_CUDA_SEED", 0));
        ready = true;
    }
    return visible.empty() ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS;
}

API CUresult cuDriverGetVersion(int* version) {
    *version = 13000;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetCount(int* count) {
    *count = int(visible.size());
    return ready ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

API CUresult cuDeviceGet(int* handle, int ordinal) {
    if (!ready) return CUDA_ERROR_NOT_INITIALIZED;
    if (device(ordinal) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    *handle = ordinal;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetName(char* name, int length, int handle) {
    if (device(handle) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    std::snprintf(name, std::size_t(length), "plimsoll host device");
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetUuid_v2(unsigned char* uuid, int handle) {
    if (device(handle) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    const unsigned char bytes[16] = {0xfa, 0x4e, 0xda, 0x7a, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 0};
    std::memcpy(uuid, bytes, 16);
    uuid[15] = static_cast<unsigned char>(device(handle)->ordinal);
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGetUuid(unsigned char* uuid, int handle) { return cuDeviceGetUuid_v2(uuid, handle); }

API CUresult cuDeviceGetPCIBusId(char* text, int length, int handle) {
    if (device(handle) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    std::snprintf(text, std::size_t(length), "0000:%02X:00.0", device(handle)->ordinal + 1);
    return CUDA_SUCCESS;
}

API CUresult cuDeviceTotalMem_v2(std::size_t* bytes, int handle) {
    if (device(handle) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = device(handle)->total_bytes;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceGetAttribute(int* value, int attribute, int handle) {
    if (device(handle) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    int major, minor;
    capability(&major, &minor);
    switch (attribute) {
        case 1: case 2: case 3: *value = 1024; break;         // threads of a block, and its x and y
        case 4: *value = 64; break;                           // its z
        case 5: *value = 0x7fffffff; break;                   // a grid's x
        case 6: case 7: *value = 65535; break;                // its y and z
        case 8: *value = 48 << 10; break;                     // shared memory of a block
        case 9: *value = 64 << 10; break;                     // constant memory
        case 10: *value = 32; break;                          // warp
        case 12: case 82: *value = 65536; break;              // registers of a block, of a multiprocessor
        case 13: *value = 1000000; break;                     // clock, kHz
        case 16: *value = 8; break;                           // multiprocessors
        case 33: *value = device(handle)->ordinal + 1; break; // PCI bus
        case 36: *value = 1000000; break;                     // memory clock, kHz
        case 37: *value = 1024; break;                        // memory bus, bits
        case 38: *value = 1 << 20; break;                     // L2 cache
        case 39: *value = 2048; break;                        // threads of a multiprocessor
        case 40: case 19: case 31: case 41: case 78: *value = 1; break;  // copies, mapping, concurrency, one address space, priorities
        case 75: *value = major; break;
        case 76: *value = minor; break;
        case 81: *value = 228 << 10; break;                   // shared memory of a multiprocessor
        case 97: *value = 227 << 10; break;                   // the most a block may be given
        case 106: *value = 32; break;                         // blocks of a multiprocessor
        case 111: *value = 1 << 10; break;                    // shared memory the system takes of each block
        case 115: *value = 1; break;                          // memory pools
        default: *value = 0; break;
    }
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxRetain(void** context, int handle) {
    Held held(lock);
    if (device(handle) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    ++primary[std::size_t(handle)]->retained;
    *context = primary[std::size_t(handle)];
    return CUDA_SUCCESS;
}

// The last release ends the context, and with it its fault.
API CUresult cuDevicePrimaryCtxRelease_v2(int handle) {
    Held held(lock);
    if (device(handle) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    Context& context = *primary[std::size_t(handle)];
    if (context.retained == 0) return CUDA_ERROR_INVALID_CONTEXT;
    if (--context.retained == 0) context.fault = CUDA_SUCCESS;
    return CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxSetFlags_v2(int handle, unsigned) {
    return device(handle) == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

API CUresult cuDevicePrimaryCtxGetState(int handle, unsigned* flags, int* active) {
    if (device(handle) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    *flags = 0;
    *active = primary[std::size_t(handle)]->retained > 0;
    return CUDA_SUCCESS;
}

API CUresult cuDeviceCanAccessPeer(int* able, int handle, int other) {
    *able = 0;
    return device(handle) == nullptr || device(other) == nullptr ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

API CUresult cuCtxCreate_v4(void** context, void*, unsigned, int handle) {
    if (device(handle) == nullptr) return CUDA_ERROR_INVALID_DEVICE;
    stack.push_back(new Context{device(handle)});
    *context = stack.back();
    return CUDA_SUCCESS;
}

API CUresult cuCtxDestroy_v2(void* context) {
    if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    if (current() == context) stack.pop_back();
    delete static_cast<Context*>(context);
    return CUDA_SUCCESS;
}

API CUresult cuCtxSetCurrent(void* context) {
    if (!ready) return CUDA_ERROR_NOT_INITIALIZED;
    if (!stack.empty()) stack.pop_back();
    if (context != nullptr) stack.push_back(static_cast<Context*>(context));
    return CUDA_SUCCESS;
}

API CUresult cuCtxPushCurrent_v2(void* context) {
    if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    stack.push_back(static_cast<Context*>(context));
    return CUDA_SUCCESS;
}

API CUresult cuCtxPopCurrent_v2(void** context) {
    if (stack.empty()) return CUDA_ERROR_INVALID_CONTEXT;
    if (context != nullptr) *context = stack.back();
    stack.pop_back();
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetCurrent(void** context) {
    *context = current();
    return ready ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

API CUresult cuCtxGetDevice(int* handle) {
    if (current() == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
    for (std::size_t at = 0; at < visible.size(); ++at) {
        if (visible[at] == current()->device) *handle = int(at);
    }
    return CUDA_SUCCESS;
}

API CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    *least = 0;
    *greatest = -5;
    return usable();
}

API CUresult cuCtxSetFlags(unsigned) { return usable(); }
API CUresult cuCtxGetLimit(std::size_t* value, int) {
    *value = 1024;
    return usable();
}
API CUresult cuCtxSetLimit(int, std::size_t) { return usable(); }
API CUresult cuCtxGetCacheConfig(int* value) {
    *value = 0;
    return usable();
}
API CUresult cuCtxSetCacheConfig(int) { return usable(); }

API CUresult cuCtxSynchronize() {
    CUresult result = usable();
    if (result == CUDA_SUCCESS) result = outside_capture(false);
    return result == CUDA_SUCCESS ? check_zones(current()) : result;
}

struct Named {
    CUresult code;
    const char *name, *text;
};
static const Named NAMED[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS", "no error"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
    {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CUDA_ERROR_MISALIGNED_ADDRESS, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"},
    {902, "CUDA_ERROR_STREAM_CAPTURE_MERGE", "operation would result in a merge of separate capture sequences"},
    {903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"},
    {904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "operation would make the legacy stream depend on a capturing blocking stream"},
    {907, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
    {908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "attempt to terminate a thread-local capture sequence from another thread"},
};

API CUresult cuGetErrorName(CUresult code, const char** name) {
    for (const Named& named : NAMED) {
        if (named.code == code) return *name = named.name, CUDA_SUCCESS;
    }
    return *name = nullptr, CUDA_ERROR_INVALID_VALUE;
}

API CUresult cuGetErrorString(CUresult code, const char** text) {
    for (const Named& named : NAMED) {
        if (named.code == code) return *text = named.text, CUDA_SUCCESS;
    }
    return *text = nullptr, CUDA_ERROR_INVALID_VALUE;
}
