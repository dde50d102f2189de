// The order in which a block's threads run, and the faults of threads that wait for what cannot come.

#include "block.h"

#include <cstdarg>
#include <cstdio>

#include "fiber.h"

namespace simt {

static std::string text_of(const Block& block, const Thread* thread, const char* text) {
    char where[256];
    int length = std::snprintf(where, sizeof where, "%s/%s (%s), block (%u,%u,%u)", block.kernel->program,
                               block.kernel->name, block.kernel->element, block.block_index.x, block.block_index.y,
                               block.block_index.z);
    if (thread != nullptr) {
        std::snprintf(where + length, sizeof where - length, ", thread (%u,%u,%u)", thread->index.x, thread->index.y,
                      thread->index.z);
    }
    return std::string(where) + ": " + text;
}

void Block::stop(Code code, const Thread* thread, const char* text) {
    fault = Fault{code, text_of(*this, thread, text)};
    simt_resume(scheduler);
}

void fault(Code code, const char* format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    block().stop(code, &self(), text);
}

static void enter() {
    Block& here = block();
    here.kernel->call(here.parameters, here.kernel->function);
    here.leave(self());
}

void Block::run(uint3 index, std::uint64_t seed) {
    block_index = index;
    random_state = mixed(seed) | 1;
    depth_first = random_below(2) == 0;
    live = thread_count;
    arrived = 0;
    ready_count = 0;
    start_shared();
    auto* stacks = reinterpret_cast<unsigned char*>(this) + stacks_at;
    for (unsigned at = 0; at < thread_count; ++at) {
        Thread& thread = threads[at];
        // Staggered, or the same few cache lines would hold the top of every stack.
        unsigned char* top = stacks + (at + 1) * stack_bytes - at % 128 * 192;
        thread.stack_pointer = new_context(top, enter);
        thread.waits_in = nullptr;
        thread.group = 0;
        thread.copies.clear();
    }
    for (unsigned warp = 0; warp * 32 < thread_count; ++warp) {
        unsigned lanes = thread_count - warp * 32;
        warps[warp].lanes = lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1;
        warps[warp].gone = 0;
        for (Pending& pending : warps[warp].pending) pending.arrived = 0;
    }
    release_barrier();
    simt_switch(&scheduler, ready[--ready_count]->stack_pointer);
    if (fault.code == Code::success) check_shared();
}

void Block::yield(Thread& thread) {
    if (ready_count == 0) {
        // Nobody can run, so somebody waits for a thread that waits elsewhere.
        char text[256];
        std::snprintf(text, sizeof text, "waits in %s of line %d for threads that wait elsewhere or have left: divergence",
                      thread.waits_in, thread.line);
        stop(Code::launch_failed, &thread, text);
    }
    unsigned at = depth_first ? ready_count - 1 : random_below(ready_count);
    Thread* next = ready[at];
    ready[at] = ready[--ready_count];
    if (next == &thread) return;
    ++switches;
    if (stack_pointer() % stack_bytes < 4096) stop(Code::launch_failed, &thread, "has used up its stack");
    simt_switch(&thread.stack_pointer, next->stack_pointer);
}

void Block::release_barrier() {
    arrived = 0;
    ready_count = thread_count;
    for (unsigned at = 0; at < thread_count; ++at) {
        threads[at].waits_in = nullptr;
        unsigned to = random_below(at + 1);
        ready[at] = ready[to];
        ready[to] = &threads[at];
    }
}

void Block::leave(Thread& thread) {
    Warp& warp = warps[thread.warp];
    if (arrived != 0) {
        char text[128];
        std::snprintf(text, sizeof text, "leaves the kernel while others wait in the barrier of line %d", barrier_line);
        stop(Code::launch_failed, &thread, text);
    }
    for (const Pending& pending : warp.pending) {
        if (pending.arrived != 0 && (pending.mask >> thread.lane & 1) != 0) {
            char text[128];
            std::snprintf(text, sizeof text, "leaves the kernel while its warp waits in %s of line %d", pending.name,
                          pending.line);
            stop(Code::launch_failed, &thread, text);
        }
    }
    warp.gone |= 1u << thread.lane;
    if (--live == 0) simt_resume(scheduler);
    thread.waits_in = "nothing, having left";
    yield(thread);
    __builtin_unreachable();
}

void barrier(int line) {
    Block& here = block();
    Thread& thread = self();
    if (here.live != here.thread_count) fault(Code::launch_failed, "reaches the barrier of line %d, and others have left", line);
    if (here.arrived == 0) here.barrier_line = line;
    if (here.barrier_line != line) {
        fault(Code::launch_failed, "reaches the barrier of line %d while others wait in the one of line %d: divergence", line,
              here.barrier_line);
    }
    thread.waits_in = "the barrier";
    thread.line = line;
    if (++here.arrived == here.thread_count) here.release_barrier();
    here.yield(thread);
}

void collective(const char* name, unsigned mask, Perform perform, void* operands, int line) {
    Block& here = block();
    Thread& thread = self();
    Warp& warp = here.warps[thread.warp];
    if ((mask >> thread.lane & 1) == 0) fault(Code::launch_failed, "%s of line %d: the mask lacks the caller", name, line);
    mask &= warp.lanes;
    if ((mask & warp.gone) != 0) {
        fault(Code::launch_failed, "%s of line %d: the mask names lanes that have left the kernel", name, line);
    }
    Pending* pending = nullptr;
    for (Pending& other : warp.pending) {
        if (other.arrived == 0) {
            if (pending == nullptr) pending = &other;
        } else if (other.mask == mask) {
            pending = &other;
            break;
        } else if ((other.mask & mask) != 0) {
            fault(Code::launch_failed, "%s of line %d while lanes it names wait in %s of line %d: divergence", name, line,
                  other.name, other.line);
        }
    }
    if (pending == nullptr) fault(Code::launch_failed, "%s of line %d: too many parts of one warp wait", name, line);
    if (pending->arrived == 0) {
        *pending = Pending{mask, 0, perform, name, line};
    } else if (pending->perform != perform || pending->line != line) {
        fault(Code::launch_failed, "%s of line %d while other lanes wait in %s of line %d: divergence", name, line,
              pending->name, pending->line);
    }
    warp.operands[thread.lane] = operands;
    pending->arrived |= 1u << thread.lane;
    if (pending->arrived != mask) {
        thread.waits_in = name;
        thread.line = line;
        here.yield(thread);
        return;
    }
    perform(warp.operands, mask);
    pending->arrived = 0;
    unsigned first = here.random_below(32);
    for (unsigned step = 0; step < 32; ++step) {
        unsigned lane = (first + step) % 32;
        if ((mask >> lane & 1) == 0 || lane == thread.lane) continue;
        Thread* other = &here.threads[thread.warp * 32 + lane];
        other->waits_in = nullptr;
        here.ready[here.ready_count++] = other;
    }
    // Either may run ahead: the lane that came last, or one that waited.
    if (here.random_below(4) == 0) {
        here.ready[here.ready_count++] = &thread;
        std::swap(here.ready[here.ready_count - 1], here.ready[here.random_below(here.ready_count)]);
        here.yield(thread);
    }
}

}  // namespace simt
