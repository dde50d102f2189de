// Attention of prefill chunks: every row of a chunk over all cached tokens up to its own.
//
//   attention_prefill_h{32,64,96,128,256}    grid(ceil(most rows of a sequence / 64), q_heads, sequences), block 128
//
// Sequence s has rows cu_seqlens_q[s]..cu_seqlens_q[s + 1]; they are the last of its context_lens[s] tokens, and keys and values
// of all of these are cached. A row sees tokens up to its position, with a window only the last `window` of them. qkv rows are
// [q_heads | kv_heads | kv_heads] x head_dim. A block computes 64 rows of one query head; blocks past their sequence's rows
// leave at once. scale is above 0. Shared memory is static.
//
// The bodies: prefill_mma.cuh in bf16, prefill_scalar.cuh in f32.

#include "paged.cuh"

constexpr int QUERY_TILE = 64;

// What one block computes: rows `first..first + count` of the step (count up to 64), the first at `position` of its sequence.
struct PrefillWork {
    element* out;
    const element* qkv;
    const element* k_cache;
    const element* v_cache;
    Pages pages;
    u32 first;
    int count;
    u32 position;
    int head;
    int q_heads;
    float scale;
    int window;
};

// The first token that the row at `position` sees.
DEV u32 first_seen(u32 position, int window) {
    return window > 0 && position + 1 > (u32)window ? position + 1 - window : 0;
}

#ifdef ELEMENT_BF16
#include "prefill_mma.cuh"
#else
#include "prefill_scalar.cuh"
#endif

#define PREFILL(D)                                                                                                                 \
    KERNEL_MIN(attention_prefill_h##D, 128, PREFILL_BLOCKS(D),                                                                     \
               (element* __restrict__ out, const element* __restrict__ qkv, const element* __restrict__ k_cache,                   \
                const element* __restrict__ v_cache, const u32* __restrict__ block_tables, const u32* __restrict__ cu_blocks,      \
                const u32* __restrict__ context_lens, const u32* __restrict__ cu_seqlens_q, int q_heads, int kv_heads,             \
                int block_size, float scale, int window)) {                                                                        \
        SHARED uint4 staged[PrefillShared<D>::PACKS];                                                                              \
        const int sequence = blockIdx.z;                                                                                           \
        const int head = blockIdx.y;                                                                                               \
        const u32 rows = cu_seqlens_q[sequence + 1] - cu_seqlens_q[sequence];                                                      \
        /* The last rows see most tokens: their blocks start first. */                                                             \
        const u32 offset = (gridDim.x - 1 - blockIdx.x) * QUERY_TILE;                                                              \
        if (offset < rows) {                                                                                                       \
            const Pages pages{block_tables + cu_blocks[sequence], block_size, kv_heads, head / (q_heads / kv_heads)};              \
            const PrefillWork work{out, qkv, k_cache, v_cache, pages, cu_seqlens_q[sequence] + offset,                             \
                                   (int)min(rows - offset, (u32)QUERY_TILE), context_lens[sequence] - rows + offset, head,         \
                                   q_heads, scale, window};                                                                        \
            prefill<D>(work, staged);                                                                                              \
        }                                                                                                                          \
    }

FOR_EACH_HEAD_DIM(PREFILL)
