// Rotary position embedding of queries and keys, and the write of keys and values into the paged cache.
//
//   rope_kv_write    grid(rows), block 256
//
// Halves layout: element i of a head turns with element i + head_dim / 2. rope[position * (head_dim / 2) + i] = (cos, sin).
// Queries and keys are turned in place. k_cache and v_cache are those of one layer, [block][kv_head][block_size][head_dim];
// slot = block * block_size + offset. A slot from 0x80000000 up marks a row that pads the batch: nothing of it is cached, but its
// position must be one of the table.
// head_dim is a multiple of 16.
//
// Versions
//   1. One block a row; a thread turns 16 bytes of both halves with 16-byte loads of the table, values are copied by the same block.
// Measured: not yet run on a GPU. Bound: memory, small beside the products around it.

#include "vector.cuh"

constexpr int THREADS = 256;

// Turns PACK pairs of one head.
DEV void turn(float (&low)[PACK], float (&high)[PACK], const float2* rope) {
#pragma unroll
    for (int i = 0; i < PACK; i += 2) {
        const float4 two = *reinterpret_cast<const float4*>(rope + i);
        const float angles[2][2] = {{two.x, two.y}, {two.z, two.w}};
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const float a = low[i + j];
            const float b = high[i + j];
            low[i + j] = a * angles[j][0] - b * angles[j][1];
            high[i + j] = b * angles[j][0] + a * angles[j][1];
        }
    }
}

KERNEL(rope_kv_write, 256,
       (element* __restrict__ qkv, const float2* __restrict__ rope, const u32* __restrict__ positions, const u32* __restrict__ slots,
        element* __restrict__ k_cache, element* __restrict__ v_cache, int q_heads, int kv_heads, int head_dim, int block_size)) {
    const int row = blockIdx.x;
    const int half = head_dim / 2;
    const u32 slot = slots[row];
    const bool cached = slot < 0x80000000u;
    const float2* angles = rope + (u64)positions[row] * half;
    element* packed = qkv + (u64)row * (q_heads + 2 * kv_heads) * head_dim;
    // Where head 0 of this token lies in the cache, and how far the next head is.
    const u64 place = ((u64)(slot / block_size) * kv_heads * block_size + slot % block_size) * head_dim;
    const u64 stride = (u64)block_size * head_dim;

    const int packs = half / PACK;
    for (int item = threadIdx.x; item < (q_heads + kv_heads) * packs; item += THREADS) {
        const int head = item / packs;
        const int column = item % packs * PACK;
        element* at = packed + head * head_dim + column;
        float low[PACK], high[PACK];
        load(at, low);
        load(at + half, high);
        turn(low, high, angles + column);
        store(at, low);
        store(at + half, high);
        if (head >= q_heads && cached) {
            element* key = k_cache + place + (head - q_heads) * stride + column;
            store(key, low);
            store(key + half, high);
        }
    }
    if (!cached) return;
    const element* values = packed + (q_heads + kv_heads) * head_dim;
    const int value_packs = head_dim / PACK;
    for (int item = threadIdx.x; item < kv_heads * value_packs; item += THREADS) {
        const int head = item / value_packs;
        const int column = item % value_packs * PACK;
        *reinterpret_cast<uint4*>(v_cache + place + head * stride + column) =
            *reinterpret_cast<const uint4*>(values + head * head_dim + column);
    }
}
