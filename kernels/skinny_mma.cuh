// Few rows times weights, bf16: the weights stream through the tensor cores, so that 8 rows cost as little as one.
//
// A block has 16 outputs. Its 8 warps take turns along k, 128 elements each, so the block reads 2 KiB of each weight row at a
// time. The weights are the 16 x 16 operand, x the columns, 8 or 16, and neither passes through shared memory: which k a place of
// an operand stands for is free as long as both agree, so a lane's 16 consecutive bytes serve as its share of two products.
// A lane has 8 weight loads in flight, a multiprocessor with three blocks 96 KiB. Each block reads all of x, from L1 or L2: with
// 16 rows that is as much as its weights, which is why there is no variant for more.
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
#define SKINNY_BLOCKS(ROWS) ((ROWS) <= 8 ? 3 : 2)
// Loads of a weight row by one lane and turn; each is 32 elements of k for the four lanes that share the row.
constexpr int SKINNY_LOADS = 4;
constexpr int SKINNY_TURN = SKINNY_LOADS * 32;
// Columns of a product.
constexpr int COLUMNS = 8;
// Sums of each warp: 16 outputs x the rows, and a gap against bank conflicts.
constexpr int SKINNY_STRIDE = SKINNY_OUTPUTS + 4;
DEV constexpr int skinny_tiles(int rows) { return (rows + COLUMNS - 1) / COLUMNS; }
DEV constexpr int skinny_parts(int rows) { return SKINNY_WARPS * skinny_tiles(rows) * COLUMNS * SKINNY_STRIDE; }

template <int ROWS, class Out>
DEV void skinny(Out* out, const bf16* x, const bf16* w, const float* bias, int rows, int n, int k, float* parts) {
    const int warp = threadIdx.x / 32;
    const int group = threadIdx.x % 32 / 4;
    const int quarter = threadIdx.x % 4;
    const int first = blockIdx.x * SKINNY_OUTPUTS;
    // Outputs that are not there read the last one's weights, and their sums are dropped.
    const bf16* low = w + (u64)min(first + group, n - 1) * k;
    const bf16* high = w + (u64)min(first + group + 8, n - 1) * k;
    // The rows of x are columns, TILES times 8 of them; those that are not there are zero.
    constexpr int TILES = skinny_tiles(ROWS);
    const int count = min(ROWS, rows);
    const bf16* own = x + (u64)group * k;
    const uint4 zero = make_uint4(0, 0, 0, 0);

    float sums[TILES][4] = {};
    for (int start = warp * SKINNY_TURN; start < k; start += SKINNY_WARPS * SKINNY_TURN) {
        uint4 weights_low[SKINNY_LOADS], weights_high[SKINNY_LOADS], inputs[SKINNY_LOADS][TILES];
#pragma unroll
        for (int i = 0; i < SKINNY_LOADS; ++i) {
            const int at = start + i * 32 + quarter * 8;
            const bool inside = at < k;
            weights_low[i] = inside ? load_streaming(reinterpret_cast<const uint4*>(low + at)) : zero;
            weights_high[i] = inside ? load_streaming(reinterpret_cast<const uint4*>(high + at)) : zero;
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile) {
                const bool there = inside && group + tile * COLUMNS < count;
                inputs[i][tile] = there ? *reinterpret_cast<const uint4*>(own + (u64)tile * COLUMNS * k + at) : zero;
            }
        }
#pragma unroll
        for (int i = 0; i < SKINNY_LOADS; ++i) {
            const unsigned first[4] = {weights_low[i].x, weights_high[i].x, weights_low[i].y, weights_high[i].y};
            const unsigned second[4] = {weights_low[i].z, weights_high[i].z, weights_low[i].w, weights_high[i].w};
#pragma unroll
            for (int tile = 0; tile < TILES; ++tile) {
                const uint4& in = inputs[i][tile];
                const unsigned first_in[2] = {in.x, in.y};
                const unsigned second_in[2] = {in.z, in.w};
                mma_m16n8k16(sums[tile], first, first_in);
                mma_m16n8k16(sums[tile], second, second_in);
            }
        }
    }

    // A lane holds outputs group and group + 8 of rows 2 quarter and 2 quarter + 1 of each tile.
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
        float* mine = parts + ((warp * TILES + tile) * COLUMNS + 2 * quarter) * SKINNY_STRIDE + group;
        mine[0] = sums[tile][0];
        mine[SKINNY_STRIDE] = sums[tile][1];
        mine[8] = sums[tile][2];
        mine[SKINNY_STRIDE + 8] = sums[tile][3];
    }
    __syncthreads();
    const int row = threadIdx.x / SKINNY_OUTPUTS;
    const int output = threadIdx.x % SKINNY_OUTPUTS;
    if (row >= count || first + output >= n) return;
    float sum = bias ? bias[first + output] : 0.0f;
#pragma unroll
    for (int i = 0; i < SKINNY_WARPS; ++i) sum += parts[(i * TILES * COLUMNS + row) * SKINNY_STRIDE + output];
    out[(u64)row * n + first + output] = narrow<Out>(sum);
}
