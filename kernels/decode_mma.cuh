// Decode attention on the tensor cores, bf16: what bounds it is reading keys and values, whatever the group.
//
// The heads of the group are the 8 columns of every product, so neither the arithmetic nor the softmax grows with them. Each warp
// takes 16 tokens at a time on its own and all in registers: keys are the 16 x 16 operand of the scores, values, turned, that
// of the results. Which elements a place of an operand stands for is free where both operands agree and where the results are told
// apart again, so every load is of 16 consecutive bytes and no operand passes through shared memory; the weights alone
// change lanes. The 4 warps meet once, at the end. More than 8 heads: two warps each take 8 heads and half of the tokens, and
// the second reading of a token comes from the L2 cache.
//
// Versions
//   1. FMA with tiles in shared memory (decode_scalar.cuh, still what f32 uses): its scores cost as much as the group is large.
//   2. This one. Not tried: cp.async stages for more bytes in flight at one block a multiprocessor, TMA.
// Measured: not yet run on a GPU. Bound: memory, 2 x kv_heads x head_dim x 2 bytes a token.
#pragma once

#include "paged.cuh"

// Blocks a multiprocessor is to hold: as many registers as 16 tokens in flight a warp take, and no spill.
#define DECODE_BLOCKS(D) ((D) <= 64 ? 4 : (D) <= 128 ? 3 : 2)

// Heads that one warp computes.
constexpr int HEADS = 8;
constexpr int WARPS = 4;
// Tokens that a warp takes at a time.
constexpr int TOKENS = 16;

// Where the warps meet: for each warp and head the results and (highest, sum), in floats. The odd stride keeps banks apart.
template <int D>
struct DecodeShared {
    static constexpr int STRIDE = D + 1;
    static constexpr int STATES = WARPS * HEADS * STRIDE;
    static constexpr int PACKS = (STATES + WARPS * HEADS * 2 + 3) / 4;
};

DEV unsigned low_halves(unsigned first, unsigned second) { return (first & 0xffffu) | second << 16; }
DEV unsigned high_halves(unsigned first, unsigned second) { return first >> 16 | (second & 0xffff0000u); }

// The largest over the eight lanes that share lane % 4.
DEV float column_max(float value) {
#pragma unroll
    for (int distance = 4; distance < 32; distance *= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

DEV float column_sum(float value) {
#pragma unroll
    for (int distance = 4; distance < 32; distance *= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// What one warp knows of its heads: results of dims and heads as the products lay them out, and of heads 2 quarter and
// 2 quarter + 1 the highest score and this lane's part of the sum of weights.
template <int D>
struct WarpResults {
    float results[D / 16][4];
    float highest[2];
    float sums[2];
};

// Keys of the 16 tokens of a tile, whose rows lanes 0..15 hold in `place`: of two tokens 8 of every 32 dims.
template <int D>
struct Keys {
    uint4 parts[D / 32][2];

    DEV void load(const bf16* cache, u32 place, int group, int quarter) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const bf16* key = cache + (u64)__shfl_sync(0xffffffffu, place, group + i * 8) * D + quarter * 8;
#pragma unroll
            for (int part = 0; part < D / 32; ++part) parts[part][i] = load_streaming(reinterpret_cast<const uint4*>(key + part * 32));
        }
    }

    DEV void score(float (&scores)[4], const uint4 (&query)[D / 32]) const {
#pragma unroll
        for (int part = 0; part < D / 32; ++part) {
            const uint4 low = parts[part][0];
            const uint4 high = parts[part][1];
            const unsigned first_a[4] = {low.x, high.x, low.y, high.y};
            const unsigned first_b[2] = {query[part].x, query[part].y};
            mma_m16n8k16(scores, first_a, first_b);
            const unsigned second_a[4] = {low.z, high.z, low.w, high.w};
            const unsigned second_b[2] = {query[part].z, query[part].w};
            mma_m16n8k16(scores, second_a, second_b);
        }
    }
};

// Values of the same tokens, 64 dims (or the last 32) at a time: a lane holds 8 (4) consecutive ones of four tokens.
template <int D>
struct Values {
    uint4 wide[D / 64 + 1][4];
    uint2 tail[4];

    DEV void load(const bf16* cache, u32 place, int group, int quarter) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const bf16* value = cache + (u64)__shfl_sync(0xffffffffu, place, quarter * 2 + i % 2 + i / 2 * 8) * D;
#pragma unroll
            for (int part = 0; part < D / 64; ++part) {
                wide[part][i] = load_streaming(reinterpret_cast<const uint4*>(value + part * 64 + group * 8));
            }
            if constexpr (D % 64 != 0) tail[i] = *reinterpret_cast<const uint2*>(value + D / 64 * 64 + group * 4);
        }
    }

    // Adds weights times two of the lane's dims: word `word` of each token's.
    DEV static void add(float (&results)[4], unsigned a, unsigned b, unsigned c, unsigned d, const unsigned (&weights)[2]) {
        const unsigned turned[4] = {low_halves(a, b), high_halves(a, b), low_halves(c, d), high_halves(c, d)};
        mma_m16n8k16(results, turned, weights);
    }

    DEV void weigh(float (&results)[D / 16][4], const unsigned (&weights)[2]) const {
#pragma unroll
        for (int part = 0; part < D / 64; ++part) {
            const uint4(&v)[4] = wide[part];
            add(results[part * 4], v[0].x, v[1].x, v[2].x, v[3].x, weights);
            add(results[part * 4 + 1], v[0].y, v[1].y, v[2].y, v[3].y, weights);
            add(results[part * 4 + 2], v[0].z, v[1].z, v[2].z, v[3].z, weights);
            add(results[part * 4 + 3], v[0].w, v[1].w, v[2].w, v[3].w, weights);
        }
        if constexpr (D % 64 != 0) {
            add(results[D / 64 * 4], tail[0].x, tail[1].x, tail[2].x, tail[3].x, weights);
            add(results[D / 64 * 4 + 1], tail[0].y, tail[1].y, tail[2].y, tail[3].y, weights);
        }
    }
};

// The first of the two dims that result tile `tile` holds for a lane of `group`.
template <int D>
DEV int dim_of(int tile, int group) {
    return tile < D / 64 * 4 ? tile / 4 * 64 + group * 8 + tile % 4 * 2 : D / 64 * 64 + group * 4 + tile % 4 * 2;
}

// Tokens first, first + step, ... of one warp, TOKENS at each.
template <int D>
DEV void attend(const DecodeArguments& arguments, const DecodeWork& work, const uint4 (&query)[D / 32], u32 first, u32 step,
                WarpResults<D>& own) {
    const int lane = threadIdx.x % 32;
    const int group = lane / 4;
    const int quarter = lane % 4;
    // Whether the next keys are on their way while values are weighed. At 256 wide they do not fit the registers.
    constexpr bool AHEAD = D <= 128;
    // Tokens past the end read the last one, and weigh nothing.
    const u32 last = work.end - 1;
    u32 place = work.pages.row(min(first + lane % TOKENS, last));
    // Scores are in powers of 2.
    const float scale = arguments.scale * LOG2_E;
    Keys<D> keys;
    Values<D> values;
    if constexpr (AHEAD) keys.load(arguments.k_cache, place, group, quarter);
    for (u32 start = first; start < work.end; start += step) {
        if constexpr (!AHEAD) keys.load(arguments.k_cache, place, group, quarter);
        if constexpr (AHEAD) values.load(arguments.v_cache, place, group, quarter);
        const u32 next = work.pages.row(min(start + step + lane % TOKENS, last));
        float scores[4] = {};
        keys.score(scores, query);
        if constexpr (!AHEAD) values.load(arguments.v_cache, place, group, quarter);
        if constexpr (AHEAD) keys.load(arguments.k_cache, next, group, quarter);
        place = next;

        float factors[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            float& low = scores[i];
            float& high = scores[i + 2];
            low = start + group < work.end ? low * scale : minus_infinity();
            high = start + group + 8 < work.end ? high * scale : minus_infinity();
            const float now = fmaxf(own.highest[i], column_max(fmaxf(low, high)));
            factors[i] = exp2_approximate(own.highest[i] - now);
            own.highest[i] = now;
            low = exp2_approximate(low - now);
            high = exp2_approximate(high - now);
            own.sums[i] = fmaf(own.sums[i], factors[i], low + high);
        }
#pragma unroll
        for (int tile = 0; tile < D / 16; ++tile) {
#pragma unroll
            for (int i = 0; i < 4; ++i) own.results[tile][i] *= factors[i % 2];
        }
        // A lane has weights of one token and two heads; the product wants two tokens and one head.
        unsigned weights[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const unsigned two = pack_two(scores[2 * i], scores[2 * i + 1]);
            const unsigned even = __shfl_sync(0xffffffffu, two, quarter * 8 + group / 2);
            const unsigned odd = __shfl_sync(0xffffffffu, two, quarter * 8 + 4 + group / 2);
            weights[i] = group % 2 == 0 ? low_halves(even, odd) : high_halves(even, odd);
        }
        values.weigh(own.results, weights);
    }
}

template <int D>
DEV void decode(const DecodeArguments& arguments, const DecodeWork& work, uint4* staged) {
    constexpr int STRIDE = DecodeShared<D>::STRIDE;
    const int warp = threadIdx.x / 32;
    const int group = threadIdx.x % 32 / 4;
    const int quarter = threadIdx.x % 4;
    const int sets = work.group > HEADS ? 2 : 1;
    const int first_head = warp % sets * HEADS;

    uint4 query[D / 32];
    const u64 packed = (u64)work.row * (arguments.q_heads + 2 * arguments.kv_heads) * D;
    const bf16* queries = arguments.qkv + packed + (work.pages.kv_head * work.group + first_head + group) * D + quarter * 8;
#pragma unroll
    for (int part = 0; part < D / 32; ++part) {
        query[part] = make_uint4(0, 0, 0, 0);
        if (first_head + group < work.group) query[part] = *reinterpret_cast<const uint4*>(queries + part * 32);
    }
    WarpResults<D> own = {{}, {minus_infinity(), minus_infinity()}, {}};
    attend<D>(arguments, work, query, work.begin + warp / sets * TOKENS, WARPS / sets * TOKENS, own);

    float* results = reinterpret_cast<float*>(staged);
    float2* states = reinterpret_cast<float2*>(results + DecodeShared<D>::STATES);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int head = warp * HEADS + quarter * 2 + i;
        const float sum = column_sum(own.sums[i]);
        if (group == 0) states[head] = make_float2(own.highest[i], sum);
#pragma unroll
        for (int tile = 0; tile < D / 16; ++tile) {
            float* to = results + head * STRIDE + dim_of<D>(tile, group);
            to[0] = own.results[tile][i];
            to[1] = own.results[tile][i + 2];
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < work.group * D; i += 128) {
        const int head = i / D;
        const int column = i % D;
        float highest = minus_infinity();
        for (int from = head / HEADS; from < WARPS; from += sets) highest = fmaxf(highest, states[from * HEADS + head % HEADS].x);
        float sum = 0.0f;
        float result = 0.0f;
        for (int from = head / HEADS; from < WARPS; from += sets) {
            const int at = from * HEADS + head % HEADS;
            const float factor = exp2_approximate(states[at].x - highest);
            sum = fmaf(factor, states[at].y, sum);
            result = fmaf(factor, results[at * STRIDE + column], result);
        }
        if (work.alone) {
            arguments.out[out_head(arguments, work, head) * D + column] = narrow<bf16>(result / sum);
        } else {
            arguments.partial_out[partial_head(arguments, work, head) * D + column] = result;
            if (column == 0) arguments.partial_state[partial_head(arguments, work, head)] = make_float2(highest * LN_2, sum);
        }
    }
}
