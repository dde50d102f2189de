// From a launch to its blocks: limits, the region a host thread runs blocks in, their order, and memory faults.

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>
#include <sys/mman.h>
#include <ucontext.h>

#include "block.h"
#include "fiber.h"

namespace simt {

thread_local Block* running = nullptr;
static std::atomic<std::uint64_t> current_seed{0}, switch_count{0};

void set_seed(std::uint64_t seed) { current_seed = seed; }
std::uint64_t switches() { return switch_count; }

static std::vector<const Kernel*>& list() {
    static std::vector<const Kernel*> kernels;
    return kernels;
}
void Kernel::enlist(const Kernel* kernel) { list().push_back(kernel); }
const std::vector<const Kernel*>& kernels() { return list(); }

// Memory for one block at a time, at a multiple of its own size; untouched pages cost nothing.
static Block* new_region() {
    void* mapped = mmap(nullptr, 2 * region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    auto at = reinterpret_cast<std::uintptr_t>(mapped), start = (at + region_bytes - 1) & ~(region_bytes - 1);
    if (start != at) munmap(mapped, start - at);
    munmap(reinterpret_cast<void*>(start + region_bytes), at + region_bytes - start);
    static_assert(sizeof(Block) <= stacks_at, "a block fits below its stacks");
    return new (reinterpret_cast<void*>(start)) Block();
}

// Regions are used again, by whichever host thread launches next.
struct Lease {
    static std::mutex lock;
    static std::vector<Block*> idle;
    Block* block = nullptr;

    Lease() {
        std::lock_guard<std::mutex> held(lock);
        if (idle.empty()) {
            block = new_region();
        } else {
            block = idle.back();
            idle.pop_back();
        }
    }
    ~Lease() {
        std::lock_guard<std::mutex> held(lock);
        if (block != nullptr) idle.push_back(block);
    }
};
std::mutex Lease::lock;
std::vector<Block*> Lease::idle;

constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static struct sigaction before[sizeof SIGNALS / sizeof *SIGNALS];

// A kernel that touches memory which is not there ends its launch, not the process.
static void on_memory_fault(int signal, siginfo_t* info, void* context) {
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
    auto at = static_cast<std::uintptr_t>(registers.gregs[REG_RSP]);
#else
    auto at = static_cast<std::uintptr_t>(registers.sp);
#endif
    Block* block = running;
    std::uintptr_t offset = at - reinterpret_cast<std::uintptr_t>(block) - stacks_at;
    if (block == nullptr || offset >= 1024 * stack_bytes) {
        // Not a kernel's: whoever was asked before, or the end of the process.
        const struct sigaction& other = before[std::find(SIGNALS, SIGNALS + 3, signal) - SIGNALS];
        if ((other.sa_flags & SA_SIGINFO) != 0) return other.sa_sigaction(signal, info, context);
        sigaction(signal, &other, nullptr);
        return;
    }
    const uint3 block_at = block->block_index, thread_at = block->threads[offset / stack_bytes].index;
    char text[384];
    // An address that no memory can have raises a fault without it.
    bool addressed = signal == SIGSEGV && (info->si_code == SEGV_MAPERR || info->si_code == SEGV_ACCERR);
    std::snprintf(text, sizeof text, "%s/%s (%s), block (%u,%u,%u), thread (%u,%u,%u): %s %p", block->kernel->program,
                  block->kernel->name, block->kernel->element, block_at.x, block_at.y, block_at.z, thread_at.x, thread_at.y,
                  thread_at.z, addressed ? "touches no memory at" : "an impossible address or operation, near", info->si_addr);
    block->fault = Fault{signal == SIGSEGV ? Code::illegal_address : Code::launch_failed, text};
#if defined(__x86_64__)
    registers.gregs[REG_RIP] = reinterpret_cast<greg_t>(simt_resume);
    registers.gregs[REG_RDI] = reinterpret_cast<greg_t>(block->scheduler);
#else
    registers.pc = reinterpret_cast<std::uintptr_t>(simt_resume);
    registers.regs[0] = reinterpret_cast<std::uintptr_t>(block->scheduler);
#endif
}

void catch_memory_faults() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action {};
        action.sa_sigaction = on_memory_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (std::size_t at = 0; at < sizeof SIGNALS / sizeof *SIGNALS; ++at) sigaction(SIGNALS[at], &action, &before[at]);
    });
}

static Fault refuse(const Kernel& kernel, const char* format, unsigned long long asked, unsigned long long most) {
    char text[256];
    std::snprintf(text, sizeof text, format, asked, most);
    return Fault{Code::invalid_value, std::string(kernel.program) + "/" + kernel.name + " (" + kernel.element + "): " + text};
}

Fault check(const Kernel& kernel, dim3 grid, dim3 block, std::size_t shared_bytes, std::size_t shared_limit) {
    const unsigned long long threads = 1ull * block.x * block.y * block.z;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || threads == 0) return refuse(kernel, "a grid or block of nothing", 0, 0);
    if (grid.x > 0x7fffffffu) return refuse(kernel, "grid x of %llu is over the limit of %llu", grid.x, 0x7fffffffu);
    if (grid.y > 65535) return refuse(kernel, "grid y of %llu is over the limit of %llu", grid.y, 65535);
    if (grid.z > 65535) return refuse(kernel, "grid z of %llu is over the limit of %llu", grid.z, 65535);
    if (block.z > 64) return refuse(kernel, "block z of %llu is over the limit of %llu", block.z, 64);
    const unsigned most = kernel.most_threads < 1024 ? kernel.most_threads : 1024;
    if (threads > most) return refuse(kernel, "a block of %llu threads is over the limit of %llu", threads, most);
    if (shared_bytes > shared_limit) {
        return refuse(kernel, "%llu bytes of dynamic shared memory are over the limit of %llu", shared_bytes, shared_limit);
    }
    return Fault{};
}

Fault launch(const Kernel& kernel, dim3 grid, dim3 block_size, std::size_t shared_bytes, std::size_t shared_limit,
             void* const* parameters) {
    Fault refused = check(kernel, grid, block_size, shared_bytes, shared_limit);
    if (refused.code != Code::success) return refused;
    catch_memory_faults();
    Lease lease;
    if (lease.block == nullptr) return Fault{Code::launch_failed, "no memory for a block's stacks"};
    Block& block = *lease.block;
    block.kernel = &kernel;
    block.parameters = parameters;
    block.block_size = block_size;
    block.grid_size = grid;
    block.dynamic_bytes = shared_bytes;
    // What was asked for beyond the usual opens all there is to static and dynamic memory together.
    block.shared_limit = shared_limit > usual_shared ? most_shared : usual_shared;
    block.thread_count = block_size.x * block_size.y * block_size.z;
    block.fault = Fault{};
    block.switches = 0;
    for (unsigned at = 0; at < block.thread_count; ++at) {
        Thread& thread = block.threads[at];
        thread.index = uint3{at % block_size.x, at / block_size.x % block_size.y, at / block_size.x / block_size.y};
        thread.lane = at % 32;
        thread.warp = at / 32;
    }
    std::uint64_t seed = mixed(current_seed);
    for (const char* letter = kernel.name; *letter != 0; ++letter) seed = mixed(seed ^ static_cast<unsigned char>(*letter));

    // Blocks in a random order: none may rely on another to have run.
    std::vector<std::uint64_t> order(1ull * grid.x * grid.y * grid.z);
    std::uint64_t random = seed;
    for (std::uint64_t at = 0; at < order.size(); ++at) {
        random = mixed(random);
        std::uint64_t to = random % (at + 1);
        order[at] = order[to];
        order[to] = at;
    }
    running = &block;
    for (std::uint64_t at : order) {
        uint3 index{unsigned(at % grid.x), unsigned(at / grid.x % grid.y), unsigned(at / grid.x / grid.y)};
        block.run(index, seed + at);
        if (block.fault.code != Code::success) break;
    }
    running = nullptr;
    switch_count += block.switches;
    return block.fault;
}

}  // namespace simt
