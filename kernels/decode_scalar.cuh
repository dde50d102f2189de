// Decode attention in plain arithmetic: for f32, where parity with the CPU device counts and speed does not.
//
// Tiles of tokens come to shared memory, each key and value once for all heads of the group. Scores: a thread per head and token.
// Softmax: a warp per head, running. Values: a thread keeps sums of up to D / 8 elements of the heads' outputs.
//
// Versions
//   1. This one.
// Measured: not yet run on a GPU.
#pragma once

#include "paged.cuh"

#define DECODE_BLOCKS(D) 2

constexpr int MAX_GROUP = 16;

// How shared memory is divided, in floats; rows of keys lie 4 apart against bank conflicts.
template <int D>
struct DecodeShared {
    static constexpr int TOKENS = D <= 128 ? 32 : 8;
    static constexpr int STRIDE = D + 4;
    static constexpr int QUERIES = 0;
    static constexpr int KEYS = QUERIES + MAX_GROUP * D;
    static constexpr int VALUES = KEYS + TOKENS * STRIDE;
    static constexpr int SCORES = VALUES + TOKENS * STRIDE;
    static constexpr int HIGHEST = SCORES + MAX_GROUP * TOKENS;
    static constexpr int SUMS = HIGHEST + MAX_GROUP;
    static constexpr int FACTORS = SUMS + MAX_GROUP;
    static constexpr int PACKS = (FACTORS + MAX_GROUP) / 4;
};

template <int D>
DEV void decode(const DecodeArguments& arguments, const DecodeWork& work, uint4* staged) {
    using Shared = DecodeShared<D>;
    constexpr int TOKENS = Shared::TOKENS;
    constexpr int STRIDE = Shared::STRIDE;
    constexpr int OUTPUTS = MAX_GROUP * D / 128;
    float* shared = reinterpret_cast<float*>(staged);
    float* queries = shared + Shared::QUERIES;
    float* keys = shared + Shared::KEYS;
    float* values = shared + Shared::VALUES;
    float* scores = shared + Shared::SCORES;
    float* highest = shared + Shared::HIGHEST;
    float* sums = shared + Shared::SUMS;
    float* factors = shared + Shared::FACTORS;
    const int thread = threadIdx.x;
    const int group = work.group;

    const u64 packed = (u64)work.row * (arguments.q_heads + 2 * arguments.kv_heads) * D;
    const element* query = arguments.qkv + packed + work.pages.kv_head * group * D;
    for (int i = thread; i < group * D; i += 128) queries[i] = widen(query[i]) * arguments.scale;
    if (thread < group) {
        highest[thread] = minus_infinity();
        sums[thread] = 0.0f;
    }
    float results[OUTPUTS] = {};
    for (u32 start = work.begin; start < work.end; start += TOKENS) {
        const int count = min(work.end - start, (u32)TOKENS);
        for (int i = thread; i < TOKENS * D / PACK; i += 128) {
            const int token = i / (D / PACK);
            const int column = i % (D / PACK) * PACK;
            float key[PACK] = {}, value[PACK] = {};
            if (token < count) {
                const u64 at = (u64)work.pages.row(start + token) * D + column;
                load(arguments.k_cache + at, key);
                load(arguments.v_cache + at, value);
            }
#pragma unroll
            for (int j = 0; j < PACK; ++j) {
                keys[token * STRIDE + column + j] = key[j];
                values[token * STRIDE + column + j] = value[j];
            }
        }
        __syncthreads();
        for (int i = thread; i < group * TOKENS; i += 128) {
            const float* q = queries + i / TOKENS * D;
            const float* k = keys + i % TOKENS * STRIDE;
            float sum = 0.0f;
#pragma unroll 8
            for (int column = 0; column < D; column += 4) {
                const float4 a = *reinterpret_cast<const float4*>(q + column);
                const float4 b = *reinterpret_cast<const float4*>(k + column);
                sum = fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum))));
            }
            scores[i] = i % TOKENS < count ? sum : minus_infinity();
        }
        __syncthreads();
        for (int head = thread / 32; head < group; head += 4) {
            const int lane = thread % 32;
            const float score = lane < TOKENS ? scores[head * TOKENS + lane] : minus_infinity();
            const float before = highest[head];
            const float now = fmaxf(before, warp_max(score));
            const float weight = expf(score - now);
            if (lane < TOKENS) scores[head * TOKENS + lane] = weight;
            const float sum = warp_sum(weight);
            if (lane == 0) {
                const float factor = expf(before - now);
                factors[head] = factor;
                highest[head] = now;
                sums[head] = fmaf(sums[head], factor, sum);
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < OUTPUTS; ++i) {
            const int output = thread + i * 128;
            if (output >= group * D) break;
            const int head = output / D;
            float sum = results[i] * factors[head];
            for (int token = 0; token < count; ++token) {
                sum = fmaf(scores[head * TOKENS + token], values[token * STRIDE + output % D], sum);
            }
            results[i] = sum;
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < OUTPUTS; ++i) {
        const int output = thread + i * 128;
        if (output >= group * D) break;
        const int head = output / D;
        const int column = output % D;
        if (work.alone) {
            arguments.out[out_head(arguments, work, head) * D + column] = narrow<element>(results[i] / sums[head]);
        } else {
            arguments.partial_out[partial_head(arguments, work, head) * D + column] = results[i];
        }
    }
    if (!work.alone && thread < group) {
        arguments.partial_state[partial_head(arguments, work, thread)] = make_float2(highest[thread], sums[thread]);
    }
}
