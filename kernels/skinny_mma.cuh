// Few rows times weights, bf16: the weights stream through the tensor cores, so that 8 rows cost as little as one.
//
// A block has 16 outputs. Its 8 warps take turns along k, 128 elements each, so the block reads 2 KiB of each weight row at a
// time. The weights are the 16 x 16 operand, x the 8 columns, and neither passes through shared memory: which k a place of
// an operand stands for is free as long as both agree, so a lane's 16 consecutive bytes serve as its share of two products.
// A lane has 8 weight loads in flight, a multiprocessor with three blocks 96 KiB.
//
// Versions
//   1. This one. Not tried: FMA in place of mma (in the worst case, 8 rows, its 17 TFMA/s beside 4.3 TB/s would take 60 % of an
//      H200's issue slots), x in shared memory (at 8 rows x 14336 it does not fit), a second stage of loads in registers.
// Measured: not yet run on a GPU. Bound: memory, n x k x 2 bytes.
#pragma once

#include "vector.cuh"

constexpr int SKINNY_OUTPUTS = 16;
constexpr int SKINNY_WARPS = 8;
// Blocks a multiprocessor is to hold: without the bound ptxas saves registers and with them loads in flight.
constexpr int SKINNY_BLOCKS = 3;
// Loads of a weight row by one lane and turn; each is 32 elements of k for the four lanes that share the row.
constexpr int SKINNY_LOADS = 4;
constexpr int SKINNY_TURN = SKINNY_LOADS * 32;
// Sums of each warp: 16 outputs x 8 rows, and a gap against bank conflicts.
constexpr int SKINNY_STRIDE = SKINNY_OUTPUTS + 4;
constexpr int SKINNY_PARTS = SKINNY_WARPS * 8 * SKINNY_STRIDE;

template <int ROWS, class Out>
DEV void skinny(Out* out, const bf16* x, const bf16* w, const float* bias, int rows, int n, int k, float* parts) {
    const int warp = threadIdx.x / 32;
    const int group = threadIdx.x % 32 / 4;
    const int quarter = threadIdx.x % 4;
    const int first = blockIdx.x * SKINNY_OUTPUTS;
    // Outputs that are not there read the last one's weights, and their sums are dropped.
    const bf16* low = w + (u64)min(first + group, n - 1) * k;
    const bf16* high = w + (u64)min(first + group + 8, n - 1) * k;
    const bool has_row = group < ROWS && group < rows;
    const bf16* own = x + (u64)(has_row ? group : 0) * k;
    const uint4 zero = make_uint4(0, 0, 0, 0);

    float sums[4] = {};
    for (int start = warp * SKINNY_TURN; start < k; start += SKINNY_WARPS * SKINNY_TURN) {
        uint4 weights_low[SKINNY_LOADS], weights_high[SKINNY_LOADS], inputs[SKINNY_LOADS];
#pragma unroll
        for (int i = 0; i < SKINNY_LOADS; ++i) {
            const int at = start + i * 32 + quarter * 8;
            const bool inside = at < k;
            weights_low[i] = inside ? load_streaming(reinterpret_cast<const uint4*>(low + at)) : zero;
            weights_high[i] = inside ? load_streaming(reinterpret_cast<const uint4*>(high + at)) : zero;
            inputs[i] = inside && has_row ? *reinterpret_cast<const uint4*>(own + at) : zero;
        }
#pragma unroll
        for (int i = 0; i < SKINNY_LOADS; ++i) {
            const unsigned first_a[4] = {weights_low[i].x, weights_high[i].x, weights_low[i].y, weights_high[i].y};
            const unsigned first_b[2] = {inputs[i].x, inputs[i].y};
            mma_m16n8k16(sums, first_a, first_b);
            const unsigned second_a[4] = {weights_low[i].z, weights_high[i].z, weights_low[i].w, weights_high[i].w};
            const unsigned second_b[2] = {inputs[i].z, inputs[i].w};
            mma_m16n8k16(sums, second_a, second_b);
        }
    }

    // A lane holds outputs group and group + 8 of rows 2 quarter and 2 quarter + 1.
    float* mine = parts + warp * 8 * SKINNY_STRIDE + 2 * quarter * SKINNY_STRIDE + group;
    mine[0] = sums[0];
    mine[SKINNY_STRIDE] = sums[1];
    mine[8] = sums[2];
    mine[SKINNY_STRIDE + 8] = sums[3];
    __syncthreads();
    const int row = threadIdx.x / SKINNY_OUTPUTS;
    const int output = threadIdx.x % SKINNY_OUTPUTS;
    if (row >= ROWS || row >= rows || first + output >= n) return;
    float sum = bias ? bias[first + output] : 0.0f;
#pragma unroll
    for (int i = 0; i < SKINNY_WARPS; ++i) sum += parts[(i * 8 + row) * SKINNY_STRIDE + output];
    out[(u64)row * n + first + output] = narrow<Out>(sum);
}
