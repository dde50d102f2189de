// Products with weights, f32: plain, for parity with the CPU device and not for speed.
//
// Versions
//   1. skinny: a block has 16 outputs, a warp 2 of them; lanes take turns along k, 16 bytes each, x comes from the L1 cache.
//      tile: 64 x 64 results a block, 16 of k at a time through shared memory, 4 x 4 results a thread.
// Measured: not yet run on a GPU.
#pragma once

#include "vector.cuh"

constexpr int SKINNY_OUTPUTS = 16;
DEV constexpr int skinny_parts(int) { return 1; }
#define SKINNY_BLOCKS(ROWS) ((ROWS) <= 8 ? 2 : 1)

template <int ROWS, class Out>
DEV void skinny(Out* out, const float* x, const float* w, const float* bias, int rows, int n, int k, float*) {
    const int lane = threadIdx.x % 32;
    const int first = blockIdx.x * SKINNY_OUTPUTS + threadIdx.x / 32 * 2;
    // Outputs and rows that are not there are computed like the last one and dropped.
    const float* weights[2] = {w + (u64)min(first, n - 1) * k, w + (u64)min(first + 1, n - 1) * k};
    float sums[2][ROWS] = {};
#pragma unroll 2
    for (int at = lane * 4; at < k; at += 128) {
        float4 pair[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) pair[i] = *reinterpret_cast<const float4*>(weights[i] + at);
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
            const float4 in = *reinterpret_cast<const float4*>(x + (u64)min(row, rows - 1) * k + at);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                sums[i][row] = fmaf(pair[i].x, in.x, sums[i][row]);
                sums[i][row] = fmaf(pair[i].y, in.y, sums[i][row]);
                sums[i][row] = fmaf(pair[i].z, in.z, sums[i][row]);
                sums[i][row] = fmaf(pair[i].w, in.w, sums[i][row]);
            }
        }
    }
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float sum = warp_sum(sums[i][row]);
            if (lane == 0 && row < rows && first + i < n) {
                out[(u64)row * n + first + i] = narrow<Out>(sum + (bias ? bias[first + i] : 0.0f));
            }
        }
    }
}

constexpr int TILE = 64;
constexpr int TILE_K = 16;
// Rows of the staged operands lie apart by one more pack, against bank conflicts.
constexpr int TILE_STRIDE = TILE + 4;
constexpr int TILE_STAGED = 2 * TILE_K * TILE_STRIDE;

// Stages 64 rows x 16 of k, turned so that k comes first. Each thread brings 16 bytes; what is outside is zero.
DEV void stage(float* staged, const float* from, int first, int count, int start, int k) {
    const int row = threadIdx.x / 4;
    const int column = threadIdx.x % 4 * 4;
    float4 loaded = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (first + row < count && start + column < k) {
        loaded = *reinterpret_cast<const float4*>(from + (u64)(first + row) * k + start + column);
    }
    staged[(column + 0) * TILE_STRIDE + row] = loaded.x;
    staged[(column + 1) * TILE_STRIDE + row] = loaded.y;
    staged[(column + 2) * TILE_STRIDE + row] = loaded.z;
    staged[(column + 3) * TILE_STRIDE + row] = loaded.w;
}

template <class Out>
DEV void tile_product(Out* out, const float* x, const float* w, const float* bias, int rows, int n, int k, float* staged) {
    float* inputs = staged;
    float* weights = staged + TILE_K * TILE_STRIDE;
    const int first_row = blockIdx.y * TILE;
    const int first_output = blockIdx.x * TILE;
    const int row = threadIdx.x / 16 * 4;
    const int output = threadIdx.x % 16 * 4;
    float sums[4][4] = {};
    for (int start = 0; start < k; start += TILE_K) {
        stage(inputs, x, first_row, rows, start, k);
        stage(weights, w, first_output, n, start, k);
        __syncthreads();
#pragma unroll
        for (int at = 0; at < TILE_K; ++at) {
            const float4 a = *reinterpret_cast<const float4*>(inputs + at * TILE_STRIDE + row);
            const float4 b = *reinterpret_cast<const float4*>(weights + at * TILE_STRIDE + output);
            const float left[4] = {a.x, a.y, a.z, a.w};
            const float right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int m = first_row + row + i;
            const int column = first_output + output + j;
            if (m < rows && column < n) out[(u64)m * n + column] = narrow<Out>(sums[i][j] + (bias ? bias[column] : 0.0f));
        }
    }
}
