// What kernels/compat.cuh includes on the host: a device that runs CUDA kernels thread by thread, under an order that
// a seed permutes, and that reports what real hardware would leave undefined.
//
// A block's threads are fibers of one host thread. Shared memory is poisoned before each block. A barrier must be
// reached by every thread of the block from the same line, a warp collective by every lane its mask names; a thread
// that leaves the kernel before is a fault as well. A fault ends the launch with a text naming kernel, block and
// thread. Not modelled: caches and memory order, blocks that wait for each other, bank conflicts, speed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "names.h"

namespace simt {

// A copy to shared memory that was started and has not landed.
struct Copy {
    void* shared;
    const void* global;
    bool valid;
    unsigned group;
};

// One CUDA thread.
struct Thread {
    void* stack_pointer;
    uint3 index;
    unsigned lane, warp;
    const char* waits_in;  // the call it waits in, for a fault's text; null while it may run
    int line;
    void* operands;  // of the warp collective it waits in
    unsigned group;  // of asynchronous copies that is being filled
    std::vector<Copy> copies;
};

// The slot of one shared variable, unique for the place it is declared at.
struct Site {
    const char* name;
};

// Every fiber's stack lies at a fixed place behind its block, so that a stack pointer says which thread runs.
constexpr std::uintptr_t region_bytes = 128 << 20, stacks_at = 1 << 20, stack_bytes = 64 << 10;

inline std::uintptr_t stack_pointer() {
    std::uintptr_t at;
#if defined(__x86_64__)
    asm("mov %%rsp, %0" : "=r"(at));
#elif defined(__aarch64__)
    asm("mov %0, sp" : "=r"(at));
#else
#error "the host device knows the stacks of x86-64 and aarch64"
#endif
    return at;
}

struct Place {
    uint3 block_index;
    dim3 block_size, grid_size;
    unsigned char* dynamic_shared;
    Thread threads[1024];
};

inline Place& place() { return *reinterpret_cast<Place*>(stack_pointer() & ~(region_bytes - 1)); }
inline Thread& self() {
    std::uintptr_t at = stack_pointer() & (region_bytes - 1);
    return place().threads[(at - stacks_at) / stack_bytes];
}

enum class Code { success = 0, invalid_value = 1, illegal_address = 700, misaligned_address = 716, launch_failed = 719 };

// Ends the launch that the calling fiber is a part of.
[[noreturn]] void fault(Code code, const char* format, ...) __attribute__((format(printf, 2, 3)));

void barrier(int line);
void* shared_slot(const Site& site, std::size_t bytes);
// Whether all of these bytes are shared memory of the block.
bool is_shared(const void* bytes, std::size_t count);

// One shared variable: the same memory for every thread of the block. build.sh turns `SHARED type x[n];` into this.
template <class T>
T& shared(const Site& site) {
    return *static_cast<T*>(shared_slot(site, sizeof(T)));
}

// Waits for the lanes in `mask`; the last to come performs the collective on the operands of all lanes, indexed by lane.
using Perform = void (*)(void* const* operands, unsigned mask);
void collective(const char* name, unsigned mask, Perform perform, void* operands, int line);

// A kernel as the driver finds it: by program, element and name.
struct Kernel {
    const char *program, *element, *name;
    unsigned most_threads;
    std::vector<std::size_t> parameter_bytes;
    void (*call)(void* const* parameters, void (*function)());
    void (*function)();

    template <class... P>
    Kernel(const char* program, const char* element, const char* name, unsigned most_threads, void (*typed)(P...))
        : program(program), element(element), name(name), most_threads(most_threads), parameter_bytes{sizeof(P)...},
          call(spread<P...>), function(reinterpret_cast<void (*)()>(typed)) {
        enlist(this);
    }

  private:
    static void enlist(const Kernel* kernel);

    template <class... P>
    static void spread(void* const* parameters, void (*function)()) {
        spread_at<P...>(parameters, reinterpret_cast<void (*)(P...)>(function), std::index_sequence_for<P...>());
    }

    template <class... P, std::size_t... I>
    static void spread_at(void* const* parameters, void (*function)(P...), std::index_sequence<I...>) {
        function(*static_cast<std::remove_reference_t<P>*>(parameters[I])...);
    }
};

// Every kernel in the library.
const std::vector<const Kernel*>& kernels();

// Shared memory of a block: what it has, and what a function may be allowed to have.
constexpr std::size_t usual_shared = 48 << 10, most_shared = 227 << 10;

struct Fault {
    Code code = Code::success;
    std::string text;
};

// Whether a launch is within the limits of the hardware and of the kernel.
Fault check(const Kernel& kernel, dim3 grid, dim3 block, std::size_t shared_bytes, std::size_t shared_limit);

// Runs a grid to its end. `shared_limit` is how much dynamic shared memory may be asked for.
Fault launch(const Kernel& kernel, dim3 grid, dim3 block, std::size_t shared_bytes, std::size_t shared_limit,
             void* const* parameters);

// Every launch from now on is ordered by this seed.
void set_seed(std::uint64_t seed);
std::uint64_t switches();

}  // namespace simt

#define threadIdx (simt::self().index)
#define blockIdx (simt::place().block_index)
#define blockDim (simt::place().block_size)
#define gridDim (simt::place().grid_size)

#define DEV inline __attribute__((always_inline))
#define DYNAMIC_SHARED(type, name) type* const name = reinterpret_cast<type*>(simt::place().dynamic_shared)
#define KERNEL(name, THREADS, ARGUMENTS)                                                                       \
    static void name ARGUMENTS;                                                                                \
    static const simt::Kernel name##_kernel(SIMT_PROGRAM, SIMT_ELEMENT, #name, THREADS, name);                 \
    static void name ARGUMENTS
#define KERNEL_MIN(name, THREADS, MIN_BLOCKS, ARGUMENTS) KERNEL(name, THREADS, ARGUMENTS)

#include "warp.h"
