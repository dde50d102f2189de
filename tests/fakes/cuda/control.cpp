// What a test asks of the device beyond CUDA: a seed for the order threads run in, counts, and the last fault's text.

#include <cstdio>
#include <cstring>
#include <map>

#include "driver.h"
#include "simt.h"

namespace fake {

Counters counters;
static std::string last_fault;
static std::map<std::string, std::uint64_t> launches;

void report(const std::string& text) {
    Held held(lock);
    last_fault = text;
    std::fprintf(stderr, "host CUDA device: %s\n", text.c_str());
}

void count_launch(const char* kernel) {
    Held held(lock);
    ++counters.launches;
    ++launches[kernel];
}

}  // namespace fake

using namespace fake;

// Every launch from now on, in whichever thread, is ordered by `seed`.
API void fake_cuda_set_seed(std::uint64_t seed) { simt::set_seed(seed); }

// Streams that this thread makes from now on run their work as late as they may, or at once.
API void fake_cuda_set_late(bool late) { set_late(late); }

// Launches of all kernels, launches of graphs, their nodes, matrix products, allocations, switches between threads: as
// many of these as there is room for.
API void fake_cuda_counters(std::uint64_t* to, std::size_t room) {
    const std::uint64_t values[] = {counters.launches, counters.graph_launches, counters.graph_nodes,
                                    counters.matmuls,  counters.allocations,    simt::switches()};
    for (std::size_t at = 0; at < room && at < 6; ++at) to[at] = values[at];
}

// How often this kernel has been launched, within graphs or not.
API std::uint64_t fake_cuda_launches(const char* kernel) {
    Held held(lock);
    auto found = launches.find(kernel);
    return found == launches.end() ? 0 : found->second;
}

// Copies the text, closed by a zero and cut to `room`; returns its whole length.
API std::size_t fake_cuda_last_fault(char* to, std::size_t room) {
    Held held(lock);
    if (room > 0) std::snprintf(to, room, "%s", last_fault.c_str());
    return last_fault.size();
}

API void fake_cuda_forget_fault() {
    Held held(lock);
    last_fault.clear();
}
