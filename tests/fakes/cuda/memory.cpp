// Shared memory: poisoned, fenced by guard zones, and filled by asynchronous copies only when they are waited for.

#include <cstdio>
#include <cstring>

#include "block.h"

namespace simt {

constexpr std::size_t guard_bytes = 128;

void fill_poison(void* at, std::size_t bytes) {
    auto* to = static_cast<unsigned char*>(at);
    for (std::size_t filled = 0; filled < bytes; filled += sizeof poison) {
        std::memcpy(to + filled, &poison, bytes - filled < sizeof poison ? bytes - filled : sizeof poison);
    }
}

bool is_poison(const void* at, std::size_t bytes) {
    auto* from = static_cast<const unsigned char*>(at);
    for (std::size_t seen = 0; seen < bytes; seen += sizeof poison) {
        if (std::memcmp(from + seen, &poison, bytes - seen < sizeof poison ? bytes - seen : sizeof poison) != 0) return false;
    }
    return true;
}

// Shared memory lies behind the stacks, in a region of the same block.
static unsigned char* arena(Block& block) {
    return reinterpret_cast<unsigned char*>(&block) + stacks_at + 1024 * stack_bytes;
}

unsigned char* Block::reserve(std::size_t bytes) {
    unsigned char* at = shared_end;
    std::size_t padded = (bytes + 127) / 128 * 128;
    fill_poison(at, padded + guard_bytes);
    shared_end += padded + guard_bytes;
    return at;
}

void Block::start_shared() {
    shared_end = arena(*this);
    static_bytes = 0;
    variables.clear();
    reserve(0);
    dynamic_shared = reserve(dynamic_bytes);
}

void* shared_slot(const Site& site, std::size_t bytes) {
    Block& here = block();
    for (const SharedVariable& variable : here.variables) {
        if (variable.site == &site) return variable.at;
    }
    here.static_bytes += bytes;
    if (here.static_bytes > usual_shared || here.static_bytes + here.dynamic_bytes > here.shared_limit) {
        fault(Code::invalid_value, "%zu bytes of static and %zu of dynamic shared memory are over the limit of %zu",
              here.static_bytes, here.dynamic_bytes, here.shared_limit);
    }
    here.variables.push_back(SharedVariable{&site, here.reserve(bytes), bytes});
    return here.variables.back().at;
}

static void check_guard(Block& block, const unsigned char* at, std::size_t bytes, const char* name) {
    std::size_t padded = (bytes + 127) / 128 * 128, end = (bytes + 3) / 4 * 4;
    if (block.fault.code != Code::success || is_poison(at + end, padded + guard_bytes - end)) return;
    char where[64];
    std::snprintf(where, sizeof where, ", block (%u,%u,%u): ", block.block_index.x, block.block_index.y, block.block_index.z);
    block.fault = Fault{Code::illegal_address, std::string(block.kernel->program) + "/" + block.kernel->name + " (" +
                                                   block.kernel->element + ")" + where + "wrote past the end of " + name};
}

void Block::check_shared() {
    check_guard(*this, arena(*this), 0, "shared memory's beginning");
    check_guard(*this, dynamic_shared, dynamic_bytes, "dynamic shared memory");
    for (const SharedVariable& variable : variables) check_guard(*this, variable.at, variable.bytes, variable.site->name);
}

bool is_shared(const void* bytes, std::size_t count) {
    Block& here = block();
    auto* at = static_cast<const unsigned char*>(bytes);
    auto within = [&](const unsigned char* start, std::size_t size) {
        return at >= start && at + count <= start + size;
    };
    if (within(here.dynamic_shared, here.dynamic_bytes)) return true;
    for (const SharedVariable& variable : here.variables) {
        if (within(variable.at, variable.bytes)) return true;
    }
    return false;
}

// The copy may land at any time from now on: until it is waited for, its target holds neither the old bytes nor the new.
void start_copy(void* shared, const void* global, bool valid) {
    if (reinterpret_cast<std::uintptr_t>(shared) % 16 != 0 || (valid && reinterpret_cast<std::uintptr_t>(global) % 16 != 0)) {
        fault(Code::misaligned_address, "copy_async_16 from %p to %p, which are not both multiples of 16", global, shared);
    }
    if (!is_shared(shared, 16)) fault(Code::illegal_address, "copy_async_16 to %p, which is not shared memory", shared);
    Thread& thread = self();
    fill_poison(shared, 16);
    thread.copies.push_back(Copy{shared, global, valid, thread.group});
}

void land_copies(unsigned still_out) {
    Thread& thread = self();
    std::size_t landed = 0;
    // Groups are numbered from 0; `thread.group` is the one not committed yet, which no wait covers.
    for (; landed < thread.copies.size() && thread.copies[landed].group + still_out < thread.group; ++landed) {
        const Copy& copy = thread.copies[landed];
        if (copy.valid) {
            std::memcpy(copy.shared, copy.global, 16);
        } else {
            std::memset(copy.shared, 0, 16);
        }
    }
    thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(landed));
}

}  // namespace simt
