// Attention of sequences that decode one token: its query heads over all cached tokens, in splits that run side by side.
//
//   attention_decode_h{32,64,96,128,256}    grid(sequences, kv_heads, max_splits), block 128
//   attention_merge                         grid(sequences, q_heads), block 128
//
// Sequence s = first_seq + blockIdx.x has row cu_seqlens_q[s] and context_lens[s] tokens, its own included, all cached. qkv
// rows are [q_heads | kv_heads | kv_heads] x head_dim. A block serves the 1..16 query heads that share a key-value head.
// With a window only the last `window` tokens are seen. Split z covers *split_tokens tokens from the first seen one plus z times
// as many; max_splits x *split_tokens must reach the longest context. Multiples of 64 keep the four warps of a block evenly busy.
// A context of 0 is padding: zeros are written. The scale is above 0.
//
// Where one split suffices it writes `out` and the merge leaves the row alone. Else split z of a head writes, at
// ((row in the launch) * q_heads + head) * max_splits + z,
//   partial_state = (highest score, sum of e^(score - highest)) and partial_out = sum of e^(score - highest) * value, not divided.
//
// The bodies: decode_mma.cuh in bf16, decode_scalar.cuh in f32.

#include "paged.cuh"

// What all blocks of a launch share, as passed to the kernel.
struct DecodeArguments {
    element* out;
    float* partial_out;
    float2* partial_state;
    const element* qkv;
    const element* k_cache;
    const element* v_cache;
    int q_heads;
    int kv_heads;
    float scale;
};

// What one block computes.
struct DecodeWork {
    Pages pages;
    u32 row;
    u32 begin;
    u32 end;
    int group;
    bool alone;
};

// Where results of one head go: its elements of `out`, or its entry among the partial ones.
DEV u64 out_head(const DecodeArguments& arguments, const DecodeWork& work, int member) {
    return (u64)work.row * arguments.q_heads + work.pages.kv_head * work.group + member;
}

DEV u64 partial_head(const DecodeArguments& arguments, const DecodeWork& work, int member) {
    const u64 head = (u64)blockIdx.x * arguments.q_heads + work.pages.kv_head * work.group + member;
    return head * gridDim.z + blockIdx.z;
}

DEV u32 first_seen(u32 context, int window) { return window > 0 && context > (u32)window ? context - window : 0; }

#ifdef ELEMENT_BF16
#include "decode_mma.cuh"
#else
#include "decode_scalar.cuh"
#endif

#define DECODE(D)                                                                                                                  \
    KERNEL_MIN(attention_decode_h##D, 128, DECODE_BLOCKS(D),                                                                       \
               (element* __restrict__ out, float* __restrict__ partial_out, float2* __restrict__ partial_state,                    \
                const element* __restrict__ qkv, const element* __restrict__ k_cache, const element* __restrict__ v_cache,         \
                const u32* __restrict__ block_tables, const u32* __restrict__ cu_blocks, const u32* __restrict__ context_lens,     \
                const u32* __restrict__ cu_seqlens_q, int first_seq, int q_heads, int kv_heads, int block_size, float scale,       \
                int window, const u32* __restrict__ split_tokens)) {                                                               \
        SHARED uint4 staged[DecodeShared<D>::PACKS];                                                                               \
        const DecodeArguments arguments{out, partial_out, partial_state, qkv, k_cache, v_cache, q_heads, kv_heads, scale};         \
        const int sequence = first_seq + blockIdx.x;                                                                               \
        const u32 context = context_lens[sequence];                                                                                \
        const u32 seen_from = first_seen(context, window);                                                                         \
        const u32 split = *split_tokens;                                                                                           \
        /* In 64 bits: a split of any length, so also one for all. */                                                              \
        const u64 begin = seen_from + (u64)blockIdx.z * split;                                                                     \
        const Pages pages{block_tables + cu_blocks[sequence], block_size, kv_heads, (int)blockIdx.y};                              \
        const DecodeWork work{pages, cu_seqlens_q[sequence], (u32)begin, (u32)min(begin + split, (u64)context),                    \
                              q_heads / kv_heads, context - seen_from <= split};                                                   \
        if (begin < context) {                                                                                                     \
            decode<D>(arguments, work, staged);                                                                                    \
        } else if (context == 0 && blockIdx.z == 0) {                                                                              \
            for (int i = threadIdx.x; i < work.group * D; i += 128) {                                                              \
                out[out_head(arguments, work, 0) * D + i] = narrow<element>(0.0f);                                                 \
            }                                                                                                                      \
        }                                                                                                                          \
    }

FOR_EACH_HEAD_DIM(DECODE)

KERNEL(attention_merge, 128,
       (element* __restrict__ out, const float* __restrict__ partial_out, const float2* __restrict__ partial_state,
        const u32* __restrict__ context_lens, const u32* __restrict__ cu_seqlens_q, int first_seq, int q_heads, int head_dim, int window,
        const u32* __restrict__ split_tokens, int max_splits)) {
    const int sequence = first_seq + blockIdx.x;
    const u32 context = context_lens[sequence];
    const u32 seen = context - first_seen(context, window);
    const u32 split = *split_tokens;
    if (seen <= split) return;
    const int splits = (seen + split - 1) / split;
    const int head = blockIdx.y;
    const float2* states = partial_state + ((u64)blockIdx.x * q_heads + head) * max_splits;
    const float* parts = partial_out + ((u64)blockIdx.x * q_heads + head) * max_splits * head_dim;
    float highest = minus_infinity();
    for (int z = 0; z < splits; ++z) highest = fmaxf(highest, states[z].x);
    for (int column = threadIdx.x; column < head_dim; column += 128) {
        float weights = 0.0f;
        float sum = 0.0f;
#pragma unroll 4
        for (int z = 0; z < splits; ++z) {
            const float factor = expf(states[z].x - highest);
            weights = fmaf(factor, states[z].y, weights);
            sum = fmaf(factor, parts[(u64)z * head_dim + column], sum);
        }
        out[((u64)cu_seqlens_q[sequence] * q_heads + head) * head_dim + column] = narrow<element>(sum / weights);
    }
}
