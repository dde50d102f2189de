// Copies and fills. The device's side of each must lie within one allocation.

#include <cstdio>
#include <cstring>

#include "driver.h"

namespace fake {

static CUresult refuse(const char* what, CUdeviceptr at, std::size_t bytes) {
    char text[160];
    std::snprintf(text, sizeof text, "%s: %zu bytes at %#llx are not within one allocation of device memory", what, bytes, at);
    report(text);
    return CUDA_ERROR_INVALID_VALUE;
}

static Work to_device(CUdeviceptr to, const void* from, std::size_t bytes) {
    return [=] {
        if (!is_device_memory(to, bytes)) return refuse("copy to the device", to, bytes);
        std::memcpy(reinterpret_cast<void*>(to), from, bytes);
        return CUresult(CUDA_SUCCESS);
    };
}

static Work to_host(void* to, CUdeviceptr from, std::size_t bytes) {
    return [=] {
        if (!is_device_memory(from, bytes)) return refuse("copy to the host", from, bytes);
        std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
        return CUresult(CUDA_SUCCESS);
    };
}

static Work on_device(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) {
    return [=] {
        if (!is_device_memory(to, bytes)) return refuse("copy on the device, target", to, bytes);
        if (!is_device_memory(from, bytes)) return refuse("copy on the device, source", from, bytes);
        std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
        return CUresult(CUDA_SUCCESS);
    };
}

template <class T>
static Work fill(CUdeviceptr to, T value, std::size_t count) {
    return [=] {
        if (!is_device_memory(to, count * sizeof(T))) return refuse("fill", to, count * sizeof(T));
        if (to % sizeof(T) != 0) return CUresult(CUDA_ERROR_INVALID_VALUE);
        for (std::size_t at = 0; at < count; ++at) reinterpret_cast<T*>(to)[at] = value;
        return CUresult(CUDA_SUCCESS);
    };
}

static CUresult now(const Work& work) {
    CUresult result = usable();
    if (result == CUDA_SUCCESS) result = outside_capture(false);
    if (result == CUDA_SUCCESS) result = work();
    return result == CUDA_SUCCESS ? check_zones(current()) : result;
}

}  // namespace fake

using namespace fake;

API CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, std::size_t bytes) { return now(to_device(to, from, bytes)); }
API CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, std::size_t bytes) { return now(to_host(to, from, bytes)); }
API CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, std::size_t bytes) { return now(on_device(to, from, bytes)); }
API CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, std::size_t count) { return now(fill(to, value, count)); }
API CUresult cuMemsetD16_v2(CUdeviceptr to, unsigned short value, std::size_t count) { return now(fill(to, value, count)); }
API CUresult cuMemsetD32_v2(CUdeviceptr to, unsigned value, std::size_t count) { return now(fill(to, value, count)); }

API CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, std::size_t bytes, void* stream) {
    return submit(stream, to_device(to, from, bytes));
}
API CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, std::size_t bytes, void* stream) {
    return submit(stream, to_host(to, from, bytes));
}
API CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, std::size_t bytes, void* stream) {
    return submit(stream, on_device(to, from, bytes));
}
API CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, std::size_t count, void* stream) {
    return submit(stream, fill(to, value, count));
}
API CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, std::size_t count, void* stream) {
    return submit(stream, fill(to, value, count));
}
API CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, std::size_t count, void* stream) {
    return submit(stream, fill(to, value, count));
}
