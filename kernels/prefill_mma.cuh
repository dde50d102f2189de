// Prefill attention on the tensor cores, bf16: flash attention over pages (Dao, 2023).
//
// Four warps with 16 rows each; queries, scores and results stay in registers. Tiles of 64 tokens (32 where heads are 256 wide)
// come from their pages to shared memory by cp.async: values arrive while scores are computed, the next keys while values
// are weighed. A staged row is 16 bytes longer than a head, an odd number of 16-byte chunks, so that the 8 rows which ldmatrix
// reads at once lie in different banks. A warp leaves out tiles of which none of its rows sees anything.
//
// Versions
//   1. In plain arithmetic (prefill_scalar.cuh, still what f32 uses).
//   2. This one. Not tried: two stages of keys, 128 rows a block, the heads of a group sharing a tile, wgmma on sm_90a.
// Measured: not yet run on a GPU. Bound: matrix rate, 4 x head_dim operations a query head and pair of tokens.
#pragma once

#include "paged.cuh"

// Blocks a multiprocessor is to hold: what their registers allow without a spill.
#define PREFILL_BLOCKS(D) ((D) <= 32 ? 4 : (D) <= 128 ? 3 : 2)

template <int D>
struct PrefillShared {
    static constexpr int TOKENS = D <= 128 ? 64 : 32;
    static constexpr int STRIDE = D + 8;
    static constexpr int TILE = TOKENS * STRIDE;
    // So many of the last dims of the queries have no room in registers and are read from here.
    static constexpr int SPARED = D <= 64 ? 0 : D == 96 ? 32 : 96;
    static constexpr int SPARED_STRIDE = SPARED + 8;
    static constexpr int QUERIES = SPARED == 0 ? 0 : QUERY_TILE * SPARED_STRIDE;
    // Keys, values, these queries, and the places of this tile's tokens and the next one's.
    static constexpr int PACKS = (2 * TILE + QUERIES) / 8 + 2 * TOKENS / 4;
};

// Copies a tile of keys or values: LANES threads side by side take a token's chunks, or a part of them at a time.
template <int D>
DEV void stage(bf16* staged, const bf16* cache, const u32* places, u32 start, u32 end) {
    constexpr int LANES = D % 64 == 0 ? D / 8 : 4;
    constexpr int STEP = 128 / LANES;
    const int first = threadIdx.x / LANES;
    const int column = threadIdx.x % LANES * 8;
    bf16* to = staged + first * PrefillShared<D>::STRIDE + column;
    // How many of the tile's tokens from this thread's first on there are. Others arrive as zeros.
    const int count = (int)(end - start) - first;
#pragma unroll
    for (int token = 0; token < PrefillShared<D>::TOKENS; token += STEP) {
        const bf16* from = cache + (u64)places[first + token] * D + column;
#pragma unroll
        for (int part = 0; part < D; part += LANES * 8) {
            copy_async_16(to + token * PrefillShared<D>::STRIDE + part, from + part, token < count);
        }
    }
}

// The queries of a warp's 16 rows: operands in registers, the last dims in shared memory where they do not fit.
template <int D>
struct Queries {
    using Shared = PrefillShared<D>;
    unsigned kept[(D - Shared::SPARED) / 16][4];
    const bf16* spared;

    // Rows past the chunk's are zero. `own` is the warp's first row; a barrier must follow.
    DEV void load(const PrefillWork& work, int own, bf16* shared) {
        const int lane = threadIdx.x % 32;
        const u64 width = (u64)(work.q_heads + 2 * work.pages.kv_heads) * D;
        const bf16* first = work.qkv + work.first * width + work.head * D;
#pragma unroll
        for (int part = 0; part < (D - Shared::SPARED) / 16; ++part) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int row = own + lane / 4 + i % 2 * 8;
                const int column = part * 16 + lane % 4 * 2 + i / 2 * 8;
                kept[part][i] = row < work.count ? *reinterpret_cast<const unsigned*>(first + row * width + column) : 0;
            }
        }
        if constexpr (Shared::SPARED > 0) {
            for (int i = threadIdx.x; i < QUERY_TILE * Shared::SPARED / 8; i += 128) {
                const int row = i / (Shared::SPARED / 8);
                const int column = i % (Shared::SPARED / 8) * 8;
                const bool valid = row < work.count;
                const bf16* from = first + (valid ? row : 0) * width + D - Shared::SPARED + column;
                copy_async_16(shared + row * Shared::SPARED_STRIDE + column, from, valid);
            }
            spared = shared + (own + lane % 16) * Shared::SPARED_STRIDE + lane / 16 * 8;
        }
    }

    // The operand of 16 dims.
    DEV void operand(int part, unsigned (&a)[4]) const {
        constexpr int KEPT = (D - Shared::SPARED) / 16;
        if (part < KEPT) {
#pragma unroll
            for (int i = 0; i < 4; ++i) a[i] = kept[part][i];
        } else {
            ldmatrix_x4(a, spared + (part - KEPT) * 16);
        }
    }
};

// Two rows of a lane, 8 apart: what a running softmax keeps.
struct RunningRows {
    float highest[2];
    float sums[2];
};

// Leaves the scores that the rows at positions `at` and at + 8 see, of tokens from start on.
template <int TILES>
DEV void mask(float (&scores)[TILES][4], const PrefillWork& work, u32 start, u32 at, u32 end) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        // Bounds for what is a constant of each score.
        const int base = start + threadIdx.x % 4 * 2;
        const int from = (int)first_seen(at + row * 8, work.window) - base;
        const int to = (int)min(at + row * 8, end - 1) - base;
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int token = tile * 8 + i;
                if (token < from || token > to) scores[tile][2 * row + i] = minus_infinity();
            }
        }
    }
}

// Turns products into weights 2^(scale x product - highest), and says by how much earlier results of both rows shrink.
template <int TILES>
DEV void soften(float (&scores)[TILES][4], RunningRows& rows, float scale, float (&factors)[2]) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        float now = minus_infinity();
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) now = fmaxf(now, fmaxf(scores[tile][2 * row], scores[tile][2 * row + 1]));
        now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 1));
        now = fmaxf(now, __shfl_xor_sync(0xffffffffu, now, 2));
        now = fmaxf(rows.highest[row], now * scale);
        // Nothing seen yet: any finite number keeps 2^(-inf - it) at 0.
        const float base = now == minus_infinity() ? 0.0f : now;
        factors[row] = exp2_approximate(rows.highest[row] - base);
        rows.highest[row] = now;
        float sum = 0.0f;
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
            for (int i = 2 * row; i < 2 * row + 2; ++i) {
                scores[tile][i] = exp2_approximate(fmaf(scores[tile][i], scale, -base));
                sum += scores[tile][i];
            }
        }
        rows.sums[row] = fmaf(rows.sums[row], factors[row], sum);
    }
}

template <int D>
DEV void prefill(const PrefillWork& work, uint4* staged) {
    using Shared = PrefillShared<D>;
    constexpr int TOKENS = Shared::TOKENS;
    constexpr int STRIDE = Shared::STRIDE;
    bf16* keys = reinterpret_cast<bf16*>(staged);
    bf16* values = keys + Shared::TILE;
    bf16* spared = values + Shared::TILE;
    u32* places = reinterpret_cast<u32*>(spared + Shared::QUERIES);
    const int thread = threadIdx.x;
    const int lane = thread % 32;
    const int group = lane / 4;
    const int quarter = lane % 4;
    const int own = thread / 32 * 16;

    const u32 begin = first_seen(work.position, work.window);
    const u32 end = work.position + work.count;
    if (thread < TOKENS) places[thread] = begin + thread < end ? work.pages.row(begin + thread) : 0;
    __syncthreads();
    Queries<D> queries;
    queries.load(work, own, spared);
    stage<D>(keys, work.k_cache, places, begin, end);
    copy_async_commit();
    // What this lane names to ldmatrix; everything else about its addresses is constant.
    const bf16* own_keys = keys + (lane / 16 * 8 + lane % 8) * STRIDE + lane / 8 % 2 * 8;
    const bf16* own_values = values + lane % 16 * STRIDE + lane / 16 * 8;
    float results[D / 8][4] = {};
    RunningRows rows = {{minus_infinity(), minus_infinity()}, {}};
    // The warp's rows lie at positions from lowest to highest.
    const u32 lowest = work.position + own;
    const u32 highest = lowest + 15;

    int turn = 0;
    for (u32 start = begin; start < end; start += TOKENS) {
        const bool seen = start <= highest && start + TOKENS > first_seen(lowest, work.window) && own < work.count;
        copy_async_wait<0>();
        __syncthreads();
        stage<D>(values, work.v_cache, places + turn * TOKENS, start, end);
        copy_async_commit();
        turn ^= 1;
        const u32 next = start + TOKENS + thread;
        if (thread < TOKENS) places[turn * TOKENS + thread] = next < end ? work.pages.row(next) : 0;

        float scores[TOKENS / 8][4] = {};
        if (seen) {
#pragma unroll
            for (int part = 0; part < D / 16; ++part) {
                unsigned query[4];
                queries.operand(part, query);
#pragma unroll
                for (int tile = 0; tile < TOKENS / 8; tile += 2) {
                    unsigned both[4];
                    ldmatrix_x4(both, own_keys + tile * 8 * STRIDE + part * 16);
                    const unsigned first[2] = {both[0], both[1]};
                    const unsigned second[2] = {both[2], both[3]};
                    mma_m16n8k16(scores[tile], query, first);
                    mma_m16n8k16(scores[tile + 1], query, second);
                }
            }
            if (start + TOKENS - 1 > lowest || start < first_seen(highest, work.window) || start + TOKENS > end) {
                mask(scores, work, start, lowest + group, end);
            }
            float factors[2];
            soften(scores, rows, work.scale * LOG2_E, factors);
#pragma unroll
            for (int tile = 0; tile < D / 8; ++tile) {
#pragma unroll
                for (int i = 0; i < 4; ++i) results[tile][i] *= factors[i / 2];
            }
        }
        copy_async_wait<0>();
        __syncthreads();
        if (start + TOKENS < end) stage<D>(keys, work.k_cache, places + turn * TOKENS, start + TOKENS, end);
        copy_async_commit();
        if (seen) {
#pragma unroll
            for (int part = 0; part < TOKENS / 16; ++part) {
                const float(&low)[4] = scores[2 * part];
                const float(&high)[4] = scores[2 * part + 1];
                const unsigned weights[4] = {pack_two(low[0], low[1]), pack_two(low[2], low[3]), pack_two(high[0], high[1]),
                                             pack_two(high[2], high[3])};
#pragma unroll
                for (int tile = 0; tile < D / 8; tile += 2) {
                    unsigned both[4];
                    ldmatrix_x4_trans(both, own_values + part * 16 * STRIDE + tile * 8);
                    const unsigned first[2] = {both[0], both[1]};
                    const unsigned second[2] = {both[2], both[3]};
                    mma_m16n8k16(results[tile], weights, first);
                    mma_m16n8k16(results[tile + 1], weights, second);
                }
            }
        }
    }

#pragma unroll
    for (int high = 0; high < 2; ++high) {
        float sum = rows.sums[high];
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        const int row = own + group + high * 8;
        if (row >= work.count) continue;
        bf16* to = work.out + ((u64)(work.first + row) * work.q_heads + work.head) * D + quarter * 2;
#pragma unroll
        for (int tile = 0; tile < D / 8; ++tile) {
            *reinterpret_cast<unsigned*>(to + tile * 8) = pack_two(results[tile][2 * high] / sum, results[tile][2 * high + 1] / sum);
        }
    }
}
