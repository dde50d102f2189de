// Many rows times weights, bf16: 128 x 128 results a block on the tensor cores.
//
// 8 warps in 2 x 4, each 64 x 32 results. 32 of k at a time come to shared memory by cp.async, three stages deep: while one
// is multiplied, the next two are on their way. A stage's row is 64 bytes, four 16-byte chunks whose order is turned by
// bits 1 and 2 of the row's number: the 8 rows that ldmatrix reads at once then lie in different banks. What is outside of
// the operands arrives as zeros.
//
// Versions
//   1. This one. Not tried: 256 x 128 tiles, wgmma on sm_90a. cuBLASLt is the device's first choice; this is what serves without it.
// Measured: not yet run on a GPU. Bound: matrix rate, 2 x rows x n x k operations.
#pragma once

#include "vector.cuh"

constexpr int TILE = 128;
constexpr int TILE_K = 32;
constexpr int STAGES = 3;
constexpr int OPERAND = TILE * TILE_K;
constexpr int TILE_STAGED = STAGES * 2 * OPERAND;
// Row tiles that are computed side by side before the next outputs are: what they share stays in the L2 cache.
constexpr int BAND = 8;

// Where the 16-byte chunk `chunk` of row `row` lies in a staged operand.
DEV int staged_at(int row, int chunk) { return row * TILE_K + (chunk ^ (row / 2 % 4)) * 8; }

// What one thread copies of an operand at each step: a chunk each of two rows that lie 64 apart.
struct Copies {
    const bf16* from[2];
    bool valid[2];
    int column;
    int to;

    DEV Copies(const bf16* operand, int first, int count, int k) {
        const int row = threadIdx.x / 4;
        column = threadIdx.x % 4 * 8;
        to = staged_at(row, threadIdx.x % 4);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            valid[i] = first + row + i * 64 < count;
            from[i] = operand + (u64)(valid[i] ? first + row + i * 64 : 0) * k + column;
        }
    }

    DEV void start(bf16* staged, int at, int k) const {
#pragma unroll
        for (int i = 0; i < 2; ++i) copy_async_16(staged + to + i * 64 * TILE_K, from[i] + at, valid[i] && at + column < k);
    }
};

DEV void put(float* to, float value) { *to = value; }
DEV void put(bf16* to, float value) { *to = narrow<bf16>(value); }
DEV void put_two(float* to, float first, float second) { *reinterpret_cast<float2*>(to) = make_float2(first, second); }
DEV void put_two(bf16* to, float first, float second) { *reinterpret_cast<unsigned*>(to) = pack_two(first, second); }

template <class Out>
DEV void tile_product(Out* out, const bf16* x, const bf16* w, const float* bias, int rows, int n, int k, bf16* staged) {
    // Blocks in launch order walk down a band of row tiles, then go to the next output tile.
    const int number = blockIdx.y * gridDim.x + blockIdx.x;
    const int band = number / (BAND * gridDim.x);
    const int height = min((int)gridDim.y - band * BAND, BAND);
    const int within = number - band * BAND * gridDim.x;
    const int first_row = (band * BAND + within % height) * TILE;
    const int first_output = within / height * TILE;

    const int lane = threadIdx.x % 32;
    const int warp_row = threadIdx.x / 128 * 64;
    const int warp_output = threadIdx.x / 32 % 4 * 32;
    bf16* inputs = staged;
    bf16* weights = staged + STAGES * OPERAND;
    const Copies input_copies(x, first_row, rows, k);
    const Copies weight_copies(w, first_output, n, k);
    // What this lane names to ldmatrix in each half of a step; everything else about its addresses is constant.
    const int input_at[2] = {staged_at(warp_row + lane % 16, lane / 16), staged_at(warp_row + lane % 16, 2 + lane / 16)};
    const int weight_row = warp_output + lane / 16 * 8 + lane % 8;
    const int weight_at[2] = {staged_at(weight_row, lane / 8 % 2), staged_at(weight_row, 2 + lane / 8 % 2)};

#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage * TILE_K < k) {
            input_copies.start(inputs + stage * OPERAND, stage * TILE_K, k);
            weight_copies.start(weights + stage * OPERAND, stage * TILE_K, k);
        }
        copy_async_commit();
    }

    float sums[4][4][4] = {};
    int stage = 0;
    for (int at = 0; at < k; at += TILE_K) {
        // One group is committed a step, so all but the newest having landed means that this step's has.
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        // The stage that was multiplied last is free now.
        const int ahead = at + (STAGES - 1) * TILE_K;
        const int freed = stage == 0 ? STAGES - 1 : stage - 1;
        if (ahead < k) {
            input_copies.start(inputs + freed * OPERAND, ahead, k);
            weight_copies.start(weights + freed * OPERAND, ahead, k);
        }
        copy_async_commit();
        const bf16* in = inputs + stage * OPERAND;
        const bf16* by = weights + stage * OPERAND;
        stage = stage == STAGES - 1 ? 0 : stage + 1;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            unsigned a[4][4], b[4][2];
#pragma unroll
            for (int i = 0; i < 4; ++i) ldmatrix_x4(a[i], in + input_at[half] + i * 16 * TILE_K);
#pragma unroll
            for (int j = 0; j < 4; j += 2) {
                unsigned two[4];
                ldmatrix_x4(two, by + weight_at[half] + j * 8 * TILE_K);
                b[j][0] = two[0];
                b[j][1] = two[1];
                b[j + 1][0] = two[2];
                b[j + 1][1] = two[3];
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) mma_m16n8k16(sums[i][j], a[i], b[j]);
            }
        }
    }

    const bool in_twos = n % 2 == 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const int column = first_output + warp_output + j * 8 + lane % 4 * 2;
        if (column >= n) continue;
        const bool both = column + 1 < n;
        const float add = bias ? bias[column] : 0.0f;
        const float add_next = bias && both ? bias[column + 1] : 0.0f;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int high = 0; high < 2; ++high) {
                const int row = first_row + warp_row + i * 16 + high * 8 + lane / 4;
                if (row >= rows) continue;
                Out* to = out + (u64)row * n + column;
                const float first = sums[i][j][2 * high] + add;
                const float second = sums[i][j][2 * high + 1] + add_next;
                if (in_twos) {
                    put_two(to, first, second);
                } else {
                    put(to, first);
                    if (both) put(to + 1, second);
                }
            }
        }
    }
}
