// Device and pinned memory: host memory that nobody else owns, poisoned when it is given out.
//
// An allocation ends at a page that may not be touched, so a kernel that goes far over its end (or far before its
// beginning) faults there and then. The few bytes between its size and the next 256, and those between its first page
// and its beginning, are a zone whose contents are checked when it is freed and whenever the host waits.

#include <map>
#include <iterator>
#include <sys/mman.h>
#include <unistd.h>

#include "block.h"
#include "driver.h"

namespace fake {

constexpr std::size_t page = 4096;
// An index of four bytes that was never written leads some 8 GiB away: still within this.
constexpr std::size_t far_zone = std::size_t(16) << 30, least_zone = 1 << 20;
constexpr std::size_t poison_bytes = 32 << 20;

struct Allocation {
    Device* device;  // null: pinned host memory
    std::size_t bytes, mapped;
    unsigned char *mapping, *first_page, *end;
    std::uint64_t ordinal;
    bool breached = false;
};

static std::map<std::uintptr_t, Allocation> allocations;  // by the address given out

// A file of poison: mapped privately, large memory is poisoned without being touched.
static int poison_file() {
    static const int file = [] {
        int opened = memfd_create("poison", MFD_CLOEXEC);
        if (opened < 0 || ftruncate(opened, poison_bytes) != 0) return -1;
        void* at = mmap(nullptr, poison_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
        if (at == MAP_FAILED) return -1;
        simt::fill_poison(at, poison_bytes);
        munmap(at, poison_bytes);
        return opened;
    }();
    return file;
}

static bool open_pages(unsigned char* first, std::size_t bytes) {
    std::size_t done = 0;
    while (bytes >= page * 256 && poison_file() >= 0 && done < bytes) {
        std::size_t part = bytes - done < poison_bytes ? bytes - done : poison_bytes;
        if (mmap(first + done, part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, poison_file(), 0) == MAP_FAILED) return false;
        done += part;
    }
    if (done < bytes) {
        if (mprotect(first, bytes, PROT_READ | PROT_WRITE) != 0) return false;
        simt::fill_poison(first, bytes);
    }
    return true;
}

static CUresult allocate(Device* device, std::size_t bytes, std::uintptr_t* given) {
    Held held(lock);
    if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
    const std::size_t padded = (bytes + 255) / 256 * 256, opened = (padded + page - 1) / page * page;
    if (padded < bytes || opened < padded) return CUDA_ERROR_OUT_OF_MEMORY;
    if (device != nullptr && padded > device->total_bytes - device->used_bytes) return CUDA_ERROR_OUT_OF_MEMORY;
    std::size_t zone = far_zone;
    void* mapping = MAP_FAILED;
    for (; zone >= least_zone; zone /= 64) {
        mapping = mmap(nullptr, opened + zone + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapping != MAP_FAILED) break;
    }
    if (mapping == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
    auto* first = static_cast<unsigned char*>(mapping) + page;
    if (!open_pages(first, opened)) {
        munmap(mapping, opened + zone + page);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    unsigned char* at = first + opened - padded;
    if (device != nullptr) device->used_bytes += padded;
    const std::uint64_t ordinal = ++counters.allocations;
    *given = reinterpret_cast<std::uintptr_t>(at);
    allocations[*given] =
        Allocation{device, bytes, opened + zone + page, static_cast<unsigned char*>(mapping), first, first + opened, ordinal};
    return CUDA_SUCCESS;
}

static bool check_zone(std::uintptr_t given, Allocation& of) {
    auto* at = reinterpret_cast<unsigned char*>(given);
    std::size_t end = (of.bytes + 3) / 4 * 4;  // poison comes in fours
    std::size_t before = std::size_t(at - of.first_page), after = std::size_t(of.end - at) - end;
    bool whole = simt::is_poison(of.first_page, before) && simt::is_poison(at + end, after);
    if (!whole && !of.breached) {
        of.breached = true;
        report("allocation " + std::to_string(of.ordinal) + " of " + std::to_string(of.bytes) + " bytes: its " +
               (simt::is_poison(of.first_page, before) ? "end" : "beginning") + " was written over");
    }
    return whole;
}

CUresult check_zones(Context* context) {
    Held held(lock);
    for (auto& [given, allocation] : allocations) {
        if ((allocation.device == nullptr || allocation.device == context->device) && !check_zone(given, allocation)) {
            context->fault = CUDA_ERROR_ILLEGAL_ADDRESS;
        }
    }
    return context->fault;
}

static CUresult release(std::uintptr_t given, bool device_memory) {
    Held held(lock);
    auto found = allocations.find(given);
    if (found == allocations.end() || (found->second.device != nullptr) != device_memory) return CUDA_ERROR_INVALID_VALUE;
    Allocation& allocation = found->second;
    CUresult result = CUDA_SUCCESS;
    if (!check_zone(given, allocation) && current() != nullptr) result = current()->fault = CUDA_ERROR_ILLEGAL_ADDRESS;
    if (allocation.device != nullptr) allocation.device->used_bytes -= (allocation.bytes + 255) / 256 * 256;
    munmap(allocation.mapping, allocation.mapped);
    allocations.erase(found);
    return result;
}

static bool within(CUdeviceptr at, std::size_t bytes, bool device_memory) {
    Held held(lock);
    auto after = allocations.upper_bound(at);
    if (after == allocations.begin()) return false;
    const auto& [given, allocation] = *std::prev(after);
    return (allocation.device != nullptr) == device_memory && at + bytes <= given + allocation.bytes;
}

bool is_device_memory(CUdeviceptr at, std::size_t bytes) { return bytes == 0 || within(at, bytes, true); }

}  // namespace fake

using namespace fake;

API CUresult cuMemAlloc_v2(CUdeviceptr* given, std::size_t bytes) {
    CUresult result = usable();
    if (result == CUDA_SUCCESS) result = outside_capture(true);
    std::uintptr_t at = 0;
    if (result == CUDA_SUCCESS) result = allocate(current()->device, bytes, &at);
    *given = at;
    return result;
}

API CUresult cuMemFree_v2(CUdeviceptr given) {
    CUresult result = outside_capture(true);
    if (result != CUDA_SUCCESS || given == 0) return result;
    return release(given, true);
}

// In the order of the stream, which runs at once. Not within a graph.
API CUresult cuMemAllocAsync(CUdeviceptr* given, std::size_t bytes, void* stream) {
    CUresult result = usable();
    auto* of = static_cast<Stream*>(stream);
    if (result == CUDA_SUCCESS && stream != nullptr && of->capture != nullptr) {
        of->capture->invalid = true;
        report("cuMemAllocAsync on a stream that is being captured: allocations within graphs are not supported here");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    std::uintptr_t at = 0;
    if (result == CUDA_SUCCESS && bytes != 0) result = allocate(current()->device, bytes, &at);
    *given = at;
    return result;
}

API CUresult cuMemFreeAsync(CUdeviceptr given, void* stream) {
    auto* of = static_cast<Stream*>(stream);
    if (stream != nullptr && of->capture != nullptr) {
        of->capture->invalid = true;
        report("cuMemFreeAsync on a stream that is being captured: allocations within graphs are not supported here");
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return given == 0 ? CUDA_SUCCESS : release(given, true);
}

API CUresult cuMemHostAlloc(void** given, std::size_t bytes, unsigned) {
    CUresult result = usable();
    if (result == CUDA_SUCCESS) result = outside_capture(true);
    std::uintptr_t at = 0;
    if (result == CUDA_SUCCESS) result = allocate(nullptr, bytes, &at);
    *given = reinterpret_cast<void*>(at);
    return result;
}
API CUresult cuMemAllocHost_v2(void** given, std::size_t bytes) { return cuMemHostAlloc(given, bytes, 0); }

API CUresult cuMemFreeHost(void* given) {
    CUresult result = outside_capture(true);
    return result == CUDA_SUCCESS ? release(reinterpret_cast<std::uintptr_t>(given), false) : result;
}

API CUresult cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    Held held(lock);
    CUresult result = usable();
    if (result != CUDA_SUCCESS) return result;
    *total = current()->device->total_bytes;
    *free = *total - current()->device->used_bytes;
    return CUDA_SUCCESS;
}

API CUresult cuMemGetAddressRange_v2(CUdeviceptr* start, std::size_t* bytes, CUdeviceptr at) {
    Held held(lock);
    if (!within(at, 1, true)) return CUDA_ERROR_NOT_FOUND;
    const auto& [given, allocation] = *std::prev(allocations.upper_bound(at));
    if (start != nullptr) *start = given;
    if (bytes != nullptr) *bytes = allocation.bytes;
    return CUDA_SUCCESS;
}

// One pool for each device, whose settings change nothing here: freed memory goes back at once.
API CUresult cuDeviceGetDefaultMemPool(void** pool, int handle) {
    if (handle < 0 || handle >= int(devices().size())) return CUDA_ERROR_INVALID_DEVICE;
    *pool = devices()[std::size_t(handle)];
    return CUDA_SUCCESS;
}
API CUresult cuDeviceGetMemPool(void** pool, int handle) { return cuDeviceGetDefaultMemPool(pool, handle); }
API CUresult cuMemPoolSetAttribute(void*, int, void*) { return CUDA_SUCCESS; }
API CUresult cuMemPoolTrimTo(void*, std::size_t) { return CUDA_SUCCESS; }
