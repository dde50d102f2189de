// The gate of the feed-forward network: out = silu(gate) * up, for rows [gate | up] of 2 x width elements.
//
//   silu_mul    grid(rows, ceil(width / 2048)), block 256
//
// width is a multiple of 8.
//
// Versions
//   1. A block takes 2048 columns of a row: one 16-byte pack a thread in bf16, two in f32, every load issued before the first use.
// Measured: not yet run on a GPU. Bound: memory, 3 elements moved for each result.

#include "vector.cuh"

constexpr int THREADS = 256;
constexpr int COLUMNS = 2048;
constexpr int PACKS = COLUMNS / (THREADS * PACK);

KERNEL(silu_mul, 256, (element* __restrict__ out, const element* __restrict__ gate_up, int width)) {
    const u64 row = blockIdx.x;
    const int first = blockIdx.y * COLUMNS + threadIdx.x * PACK;
    const element* gates = gate_up + row * 2 * width;
    float gate[PACKS][PACK], up[PACKS][PACK];
#pragma unroll
    for (int i = 0; i < PACKS; ++i) {
        const int column = first + i * THREADS * PACK;
        if (column >= width) break;
        load(gates + column, gate[i]);
        load(gates + width + column, up[i]);
    }
#pragma unroll
    for (int i = 0; i < PACKS; ++i) {
        const int column = first + i * THREADS * PACK;
        if (column >= width) break;
#pragma unroll
        for (int j = 0; j < PACK; ++j) up[i][j] *= gate[i][j] / (1.0f + exponential(-gate[i][j]));
        store(out + row * width + column, up[i]);
    }
}
