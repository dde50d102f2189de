// What the machine can do: the denominators of every share of a ceiling that a report states.
//
//   read_memory   reads count x 16 bytes, repeats times            any grid, block 256
//   copy_memory   out = in                                         any grid, block 256
//   triad         a = b + scalar * c                               any grid, block 256
//   mma_peak      iterations x 8 products of 16 x 8 x 16 a warp    any grid, block 256; bf16 only
//   idle          nothing: what a launch costs                     grid 1, block 1
//
// sink is written only with a value that does not occur, so that no work is optimised away: 4 bytes suffice. Counts are in
// 16-byte units. A launch of read_memory moves 16 x count x repeats bytes, copy_memory 32 x count, triad 48 x count;
// mma_peak does 4096 x 8 x iterations floating point operations a warp.
//
// Versions
//   1. Grid-stride loops with several 16-byte loads in flight; operands of the matrix rate are random bits, zeros would let the
//      chip clock higher than any model does.
// Measured: not yet run on a GPU.

#include "words.cuh"

// Loads in flight a thread.
constexpr int FLIGHT = 8;


KERNEL_MIN(read_memory, 256, 4, (float* __restrict__ sink, const uint4* __restrict__ in, u64 count, int repeats)) {
    unsigned seen = 0;
    for (int repeat = 0; repeat < repeats; ++repeat) {
        u64 i = grid_thread();
        for (; i + (FLIGHT - 1) * grid_threads() < count; i += FLIGHT * grid_threads()) {
            uint4 loaded[FLIGHT];
#pragma unroll
            for (int j = 0; j < FLIGHT; ++j) loaded[j] = load_streaming(in + i + j * grid_threads());
#pragma unroll
            for (int j = 0; j < FLIGHT; ++j) seen += (loaded[j].x ^ loaded[j].y) + (loaded[j].z ^ loaded[j].w);
        }
        for (; i < count; i += grid_threads()) {
            const uint4 loaded = load_streaming(in + i);
            seen += (loaded.x ^ loaded.y) + (loaded.z ^ loaded.w);
        }
    }
    // One thread in four thousand million would write; what it writes is never read.
    if (seen == 0x9e3779b9u) *sink = 1.0f;
}

KERNEL_MIN(copy_memory, 256, 4, (uint4* __restrict__ out, const uint4* __restrict__ in, u64 count)) {
    u64 i = grid_thread();
    for (; i + 3 * grid_threads() < count; i += 4 * grid_threads()) {
        uint4 loaded[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) loaded[j] = load_streaming(in + i + j * grid_threads());
#pragma unroll
        for (int j = 0; j < 4; ++j) out[i + j * grid_threads()] = loaded[j];
    }
    for (; i < count; i += grid_threads()) out[i] = load_streaming(in + i);
}

DEV float4 combine(float4 b, float4 c, float scalar) {
    return make_float4(fmaf(scalar, c.x, b.x), fmaf(scalar, c.y, b.y), fmaf(scalar, c.z, b.z), fmaf(scalar, c.w, b.w));
}

KERNEL(triad, 256, (float4* __restrict__ a, const float4* __restrict__ b, const float4* __restrict__ c, float scalar, u64 count)) {
    u64 i = grid_thread();
    for (; i + grid_threads() < count; i += 2 * grid_threads()) {
        const float4 first = combine(b[i], c[i], scalar);
        const float4 second = combine(b[i + grid_threads()], c[i + grid_threads()], scalar);
        a[i] = first;
        a[i + grid_threads()] = second;
    }
    for (; i < count; i += grid_threads()) a[i] = combine(b[i], c[i], scalar);
}

KERNEL(idle, 1, ()) {}

#ifdef ELEMENT_BF16
// Two numbers of about 1 with random fractions and signs.
DEV unsigned random_operand(unsigned counter) {
    unsigned bits = counter * 2654435761u;
    bits = (bits ^ (bits >> 15)) * 2246822519u;
    bits ^= bits >> 13;
    return (bits & 0x807f807fu) | 0x3f803f80u;
}

KERNEL(mma_peak, 256, (float* __restrict__ sink, int iterations)) {
    constexpr int CHAINS = 8;
    unsigned a[4], b[2];
    const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = random_operand(6 * thread + i);
#pragma unroll
    for (int i = 0; i < 2; ++i) b[i] = random_operand(6 * thread + 4 + i);
    float sums[CHAINS][4] = {};
    for (int i = 0; i < iterations; ++i) {
#pragma unroll
        for (int chain = 0; chain < CHAINS; ++chain) mma_m16n8k16(sums[chain], a, b);
    }
    float all = 0.0f;
#pragma unroll
    for (int chain = 0; chain < CHAINS; ++chain) all += sums[chain][0] + sums[chain][1] + sums[chain][2] + sums[chain][3];
    if (all == 0.12345f) *sink = all;
}
#endif
