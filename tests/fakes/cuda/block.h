// A block while it runs: its threads, what they wait for, its shared memory and the order they run in.
#pragma once

#include <array>
#include <atomic>

#include "simt.h"

namespace simt {

// What memory holds that nobody has written: a NaN as bf16 and as f32, and far out of range as an index.
constexpr std::uint32_t poison = 0x7fc17fc1;
void fill_poison(void* at, std::size_t bytes);
bool is_poison(const void* at, std::size_t bytes);

// splitmix64's finish: one well mixed word of another.
inline std::uint64_t mixed(std::uint64_t word) {
    word += 0x9e3779b97f4a7c15;
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
    word = (word ^ word >> 27) * 0x94d049bb133111eb;
    return word ^ word >> 31;
}

// A collective that some lanes of a warp have reached; free while none has.
struct Pending {
    unsigned mask = 0, arrived = 0;
    Perform perform = nullptr;
    const char* name = nullptr;
    int line = 0;
};

struct Warp {
    unsigned lanes, gone;  // lanes there are, lanes that have left the kernel
    std::array<Pending, 8> pending;
    void* operands[32];
};

struct SharedVariable {
    const Site* site;
    unsigned char* at;
    std::size_t bytes;
};

struct Block : Place {
    const Kernel* kernel;
    void* const* parameters;
    unsigned thread_count, live;
    std::array<Warp, 32> warps;

    // The barrier that `arrived` threads wait at.
    unsigned arrived;
    int barrier_line;

    // Threads that may run. Taken from the end, or at random: the first starves some threads as long as it can.
    Thread* ready[1024];
    unsigned ready_count;
    bool depth_first;
    std::uint64_t random_state;

    unsigned char* shared_end;
    std::size_t dynamic_bytes, static_bytes, shared_limit;
    std::vector<SharedVariable> variables;

    void* scheduler;  // the context that the launch waits in
    Fault fault;
    std::uint64_t switches;

    unsigned random_below(unsigned bound) {
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return static_cast<unsigned>((random_state >> 32) * bound >> 32);
    }

    // Runs every thread to its end, or to a fault.
    void run(uint3 index, std::uint64_t seed);
    // Runs others until `thread` may go on.
    void yield(Thread& thread);
    void release_barrier();
    [[noreturn]] void leave(Thread& thread);
    [[noreturn]] void stop(Code code, const Thread* thread, const char* text);

    void start_shared();
    unsigned char* reserve(std::size_t bytes);
    void check_shared();
};

inline Block& block() { return static_cast<Block&>(place()); }

// The block that this host thread runs, for the handler of memory faults.
extern thread_local Block* running;
void catch_memory_faults();

}  // namespace simt
