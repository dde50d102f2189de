// Prefill attention in plain arithmetic: for f32, where parity with the CPU device counts and speed does not.
//
// The block's rows are taken a few for each warp and pass. 32 keys at a time come to shared memory; a lane scores one of them for
// its warp's rows, softmax runs along, and then a lane sums D / 32 elements of the values, which it reads where they lie.
//
// Versions
//   1. This one.
// Measured: not yet run on a GPU.
#pragma once

#include "paged.cuh"

#define PREFILL_BLOCKS(D) 2

// How shared memory is divided, in floats; rows of keys lie 4 apart against bank conflicts.
template <int D>
struct PrefillShared {
    static constexpr int WARP_ROWS = D <= 128 ? 4 : 2;
    static constexpr int ROWS = 4 * WARP_ROWS;
    static constexpr int STRIDE = D + 4;
    static constexpr int QUERIES = 0;
    static constexpr int KEYS = QUERIES + ROWS * D;
    static constexpr int WEIGHTS = KEYS + 32 * STRIDE;
    static constexpr int PLACES = WEIGHTS + ROWS * 32;
    static constexpr int PACKS = (PLACES + 32) / 4;
};

// Rows offset.. of the block, ROWS of them at most.
template <int D>
DEV void prefill_pass(const PrefillWork& work, int offset, float* shared) {
    using Shared = PrefillShared<D>;
    constexpr int WARP_ROWS = Shared::WARP_ROWS;
    constexpr int STRIDE = Shared::STRIDE;
    constexpr int COLUMNS = D / 32;
    const int thread = threadIdx.x;
    const int lane = thread % 32;
    const int own = thread / 32 * WARP_ROWS;
    float* queries = shared + Shared::QUERIES;
    float* keys = shared + Shared::KEYS;
    float* weights = shared + Shared::WEIGHTS + own * 32;
    u32* places = reinterpret_cast<u32*>(shared + Shared::PLACES);
    const int count = min(work.count - offset, Shared::ROWS);
    const u64 packed_width = (u64)(work.q_heads + 2 * work.pages.kv_heads) * D;
    const u32 position = work.position + offset;

    for (int i = thread; i < Shared::ROWS * D; i += 128) {
        const element* query = work.qkv + (work.first + offset + i / D) * packed_width + work.head * D;
        queries[i] = i / D < count ? widen(query[i % D]) * work.scale : 0.0f;
    }
    float highest[WARP_ROWS], sums[WARP_ROWS] = {}, results[WARP_ROWS][COLUMNS] = {};
#pragma unroll
    for (int row = 0; row < WARP_ROWS; ++row) highest[row] = minus_infinity();

    const u32 end = position + count;
    for (u32 start = first_seen(position, work.window); start < end; start += 32) {
        __syncthreads();
        for (int i = thread; i < 32 * D / PACK; i += 128) {
            const int token = i / (D / PACK);
            const int column = i % (D / PACK) * PACK;
            float key[PACK] = {};
            if (start + token < end) {
                const u32 place = work.pages.row(start + token);
                if (column == 0) places[token] = place;
                load(work.k_cache + (u64)place * D + column, key);
            }
#pragma unroll
            for (int j = 0; j < PACK; ++j) keys[token * STRIDE + column + j] = key[j];
        }
        __syncthreads();
        float scores[WARP_ROWS] = {};
#pragma unroll 4
        for (int column = 0; column < D; column += 4) {
            const float4 k = *reinterpret_cast<const float4*>(keys + lane * STRIDE + column);
#pragma unroll
            for (int row = 0; row < WARP_ROWS; ++row) {
                const float4 q = *reinterpret_cast<const float4*>(queries + (own + row) * D + column);
                scores[row] = fmaf(q.x, k.x, fmaf(q.y, k.y, fmaf(q.z, k.z, fmaf(q.w, k.w, scores[row]))));
            }
        }
        const u32 token = start + lane;
#pragma unroll
        for (int row = 0; row < WARP_ROWS; ++row) {
            const u32 at = position + own + row;
            const bool seen = token <= at && token >= first_seen(at, work.window) && token < end;
            const float score = seen ? scores[row] : minus_infinity();
            const float now = fmaxf(highest[row], warp_max(score));
            // Nothing seen yet: any finite number keeps e^(-inf - it) at 0.
            const float base = now == minus_infinity() ? 0.0f : now;
            const float factor = expf(highest[row] - base);
            const float weight = expf(score - base);
            highest[row] = now;
            sums[row] = fmaf(sums[row], factor, weight);
            weights[row * 32 + lane] = weight;
#pragma unroll
            for (int i = 0; i < COLUMNS; ++i) results[row][i] *= factor;
        }
        __syncwarp();
        const int tokens = min(end - start, 32u);
        for (int i = 0; i < tokens; ++i) {
            const element* value = work.v_cache + (u64)places[i] * D + lane;
#pragma unroll
            for (int column = 0; column < COLUMNS; ++column) {
                const float v = widen(value[column * 32]);
#pragma unroll
                for (int row = 0; row < WARP_ROWS; ++row) results[row][column] = fmaf(weights[row * 32 + i], v, results[row][column]);
            }
        }
    }
#pragma unroll
    for (int row = 0; row < WARP_ROWS; ++row) {
        const float sum = warp_sum(sums[row]);
        if (own + row >= count) continue;
        element* to = work.out + ((u64)(work.first + offset + own + row) * work.q_heads + work.head) * D + lane;
#pragma unroll
        for (int column = 0; column < COLUMNS; ++column) to[column * 32] = narrow<element>(results[row][column] / sum);
    }
    // The next pass overwrites what others still read.
    __syncthreads();
}

template <int D>
DEV void prefill(const PrefillWork& work, uint4* staged) {
    for (int offset = 0; offset < work.count; offset += PrefillShared<D>::ROWS) {
        prefill_pass<D>(work, offset, reinterpret_cast<float*>(staged));
    }
}
