// Modules, functions and their launches.

#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <sstream>

#include "driver.h"
#include "image.h"
#include "simt.h"

namespace fake {

using simt::most_shared, simt::usual_shared;

struct Function {
    const simt::Kernel* kernel;
    std::size_t dynamic_limit = usual_shared;  // what a launch may ask for
};

struct Module {
    std::string program, element;
    std::map<std::string, std::unique_ptr<Function>> functions;
};

// Whether the image's text is the one the kernels here were compiled from.
static bool read_image(const char* image, Module& module) {
    if (std::strncmp(image, IMAGE_HEAD, std::strlen(IMAGE_HEAD)) != 0) return report("not an image of this compiler"), false;
    std::istringstream words(image + std::strlen(IMAGE_HEAD));
    for (std::string key; words >> key;) {
        if (key == "program") words >> module.program;
        if (key == "element") words >> module.element;
        if (key == "architecture") words >> key;
        if (key != "source") continue;
        std::string name;
        std::uint64_t hash = 0;
        words >> name >> std::hex >> hash;
        bool same = false;
        for (const Source& source : SOURCES) same |= name == source.name && hash == source.hash;
        if (!same) return report("an image of a " + name + " that this library was not built from"), false;
    }
    return true;
}

static CUresult code_of(simt::Code code) { return static_cast<CUresult>(code); }

struct Shape {
    dim3 grid, block;
    std::size_t shared_bytes;
};

// Arguments are copied now: a graph replays these values.
static CUresult launch(void* handle, Shape shape, void* stream, void** arguments) {
    auto* function = static_cast<Function*>(handle);
    const simt::Kernel* kernel = function->kernel;
    const std::size_t limit = function->dynamic_limit;
    simt::Fault refused = simt::check(*kernel, shape.grid, shape.block, shape.shared_bytes, limit);
    if (refused.code != simt::Code::success) {
        CUresult usability = usable();
        if (usability != CUDA_SUCCESS) return usability;
        report(refused.text);
        return code_of(refused.code);
    }
    std::vector<std::vector<unsigned char>> values;
    for (std::size_t at = 0; at < kernel->parameter_bytes.size(); ++at) {
        auto* bytes = static_cast<const unsigned char*>(arguments[at]);
        values.emplace_back(bytes, bytes + kernel->parameter_bytes[at]);
    }
    Context* context = current();
    return submit(stream, [=] {
        std::vector<void*> parameters;
        for (auto& value : values) parameters.push_back(const_cast<unsigned char*>(value.data()));
        count_launch(kernel->name);
        simt::Fault fault = simt::launch(*kernel, shape.grid, shape.block, shape.shared_bytes, limit, parameters.data());
        if (fault.code != simt::Code::success) {
            report(fault.text);
            context->fault = code_of(fault.code);
        }
        return CUresult(CUDA_SUCCESS);
    });
}

static int blocks_of_multiprocessor(int threads, std::size_t shared_bytes) {
    if (threads <= 0 || threads > 1024) return 0;
    int by_threads = 2048 / ((threads + 31) / 32 * 32), by_shared = int((228u << 10) / (shared_bytes + 1024));
    int fewest = by_threads < by_shared ? by_threads : by_shared;
    return fewest < 32 ? fewest : 32;
}

}  // namespace fake

using namespace fake;

API CUresult cuModuleLoadData(void** handle, const void* image) {
    CUresult result = usable();
    if (result == CUDA_SUCCESS) result = outside_capture(true);
    if (result != CUDA_SUCCESS) return result;
    auto module = std::make_unique<Module>();
    if (!read_image(static_cast<const char*>(image), *module)) return CUDA_ERROR_INVALID_IMAGE;
    for (const simt::Kernel* kernel : simt::kernels()) {
        if (module->program == kernel->program && module->element == kernel->element) {
            module->functions[kernel->name] = std::make_unique<Function>(Function{kernel});
        }
    }
    *handle = module.release();
    return CUDA_SUCCESS;
}
API CUresult cuModuleLoadDataEx(void** handle, const void* image, unsigned, int*, void**) { return cuModuleLoadData(handle, image); }
API CUresult cuModuleUnload(void* handle) { return delete static_cast<Module*>(handle), CUDA_SUCCESS; }

API CUresult cuModuleGetFunction(void** function, void* module, const char* name) {
    auto& functions = static_cast<Module*>(module)->functions;
    auto found = functions.find(name);
    if (found == functions.end()) return CUDA_ERROR_NOT_FOUND;
    *function = found->second.get();
    return CUDA_SUCCESS;
}

// Kernels here have no global variables.
API CUresult cuModuleGetGlobal_v2(CUdeviceptr*, std::size_t*, void*, const char*) { return CUDA_ERROR_NOT_FOUND; }

API CUresult cuFuncGetAttribute(int* value, int attribute, void* handle) {
    auto* function = static_cast<Function*>(handle);
    switch (attribute) {
        case 0: *value = int(function->kernel->most_threads); break;
        case 4: *value = 32; break;                             // registers
        case 5: case 6: *value = 90; break;                     // versions of the code
        case 8: *value = int(function->dynamic_limit); break;
        default: *value = 0; break;                             // nothing static is known, nothing spills
    }
    return usable();
}

API CUresult cuFuncSetAttribute(void* handle, int attribute, int value) {
    if (attribute == 8) {
        if (value < 0 || std::size_t(value) > most_shared) return CUDA_ERROR_INVALID_VALUE;
        static_cast<Function*>(handle)->dynamic_limit = std::size_t(value);
    }
    return usable();
}
API CUresult cuFuncSetCacheConfig(void*, int) { return usable(); }

API CUresult cuFuncGetName(const char** name, void* handle) {
    *name = static_cast<Function*>(handle)->kernel->name;
    return CUDA_SUCCESS;
}

API CUresult cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                            unsigned shared_bytes, void* stream, void** arguments, void** extra) {
    if (function == nullptr) return CUDA_ERROR_INVALID_HANDLE;
    if (extra != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    return launch(function, Shape{{gx, gy, gz}, {bx, by, bz}, shared_bytes}, stream, arguments);
}

struct CUlaunchConfig {
    unsigned gx, gy, gz, bx, by, bz, shared_bytes;
    void* stream;
    void* attributes;
    unsigned attribute_count;
};

// Attributes ask for a way to run (overlap with the kernel before), never for another result; clusters are not known.
API CUresult cuLaunchKernelEx(const CUlaunchConfig* config, void* function, void** arguments, void** extra) {
    return cuLaunchKernel(function, config->gx, config->gy, config->gz, config->bx, config->by, config->bz, config->shared_bytes,
                          config->stream, arguments, extra);
}

API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void*, int threads, std::size_t shared_bytes) {
    *blocks = blocks_of_multiprocessor(threads, shared_bytes);
    return usable();
}
API CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void*, int threads, std::size_t shared_bytes, unsigned) {
    *blocks = blocks_of_multiprocessor(threads, shared_bytes);
    return usable();
}
API CUresult cuOccupancyAvailableDynamicSMemPerBlock(std::size_t* bytes, void*, int blocks, int) {
    *bytes = blocks <= 0 ? 0 : (228u << 10) / unsigned(blocks) - 1024;
    return usable();
}
API CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int* grid, int* block, void* function, std::size_t (*)(int), std::size_t, int limit,
                                                       unsigned) {
    int most = int(static_cast<Function*>(function)->kernel->most_threads);
    *block = limit > 0 && limit < most ? limit : most;
    *grid = 8 * (2048 / *block);
    return usable();
}
API CUresult cuOccupancyMaxPotentialBlockSize(int* grid, int* block, void* function, std::size_t (*shared)(int), std::size_t bytes,
                                              int limit) {
    return cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, function, shared, bytes, limit, 0);
}
