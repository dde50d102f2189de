// Root-mean-square norms: of rows, of rows after adding them to the residual, of the heads of packed rows.
//
//   rms_norm      out = x / sqrt(mean(x^2) + eps) * weight                       grid(rows), block 256
//   add_rms_norm  residual += x, rounded to the element; out = norm(residual)    grid(rows), block 256
//   head_norm     the same in place for each query and key head of qkv rows      grid(rows, ceil((q_heads + kv_heads) / 8)), block 256
//
// Widths are multiples of 8. No two pointers overlap. Sums are f32.
//
// Versions
//   1. One block a row. A row up to 8192 wide (f32: 4096) stays in registers between sum and scaling, so memory is read once; what
//      is wider is read again, from L1 or L2. The norm is of the rounded residual, as later readers see it. The weights are asked for
//      with the row: in decode, where latency is all there is, the block waits for memory once.
// Measured: not yet run on a GPU. Bound: memory, 2 (add: 4) passes of rows x width elements.

#include "vector.cuh"

// Packs that a thread keeps.
constexpr int HELD = 4;
constexpr int THREADS = 256;

// Weights of one pack.
struct Weights {
    float4 parts[PACK / 4];

    DEV void load(const float* from) {
#pragma unroll
        for (int i = 0; i < PACK / 4; ++i) parts[i] = reinterpret_cast<const float4*>(from)[i];
    }

    DEV void scale(float (&values)[PACK], float factor) const {
#pragma unroll
        for (int i = 0; i < PACK / 4; ++i) {
            values[4 * i] *= factor * parts[i].x;
            values[4 * i + 1] *= factor * parts[i].y;
            values[4 * i + 2] *= factor * parts[i].z;
            values[4 * i + 3] *= factor * parts[i].w;
        }
    }
};

// One pack of the row to be normed. With ADD it is before + x, which becomes the residual and comes back rounded.
template <bool ADD>
DEV uint4 take(element* residual, const uint4& before, const uint4& x, float& squares) {
    uint4 bits = x;
    float values[PACK];
    unpack(bits, values);
    if constexpr (ADD) {
        float sum[PACK];
        unpack(before, sum);
#pragma unroll
        for (int i = 0; i < PACK; ++i) sum[i] += values[i];
        bits = pack(sum);
        unpack(bits, values);
        *reinterpret_cast<uint4*>(residual) = bits;
    }
#pragma unroll
    for (int i = 0; i < PACK; ++i) squares = fmaf(values[i], values[i], squares);
    return bits;
}

DEV uint4 pack_at(const element* from) { return *reinterpret_cast<const uint4*>(from); }

template <bool ADD>
DEV void norm_row(element* out, element* residual, const element* x, const float* weight, int width, float eps, float* parts) {
    constexpr int STEP = THREADS * PACK;
    const int first = threadIdx.x * PACK;
    uint4 held[HELD], before[HELD];
    Weights weights[HELD];
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const int column = first + i * STEP;
        if (column < width) {
            held[i] = pack_at(x + column);
            if constexpr (ADD) before[i] = pack_at(residual + column);
            weights[i].load(weight + column);
        }
    }
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const int column = first + i * STEP;
        if (column < width) held[i] = take<ADD>(residual + column, before[i], held[i], squares);
    }
    for (int column = first + HELD * STEP; column < width; column += STEP) {
        take<ADD>(residual + column, ADD ? pack_at(residual + column) : uint4{}, pack_at(x + column), squares);
    }
    const float scale = 1.0f / sqrtf(block_sum<THREADS / 32>(squares, parts) / width + eps);
    float values[PACK];
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const int column = first + i * STEP;
        if (column < width) {
            unpack(held[i], values);
            weights[i].scale(values, scale);
            store(out + column, values);
        }
    }
    const element* normed = ADD ? residual : x;
    for (int column = first + HELD * STEP; column < width; column += STEP) {
        load(normed + column, values);
        weights[0].load(weight + column);
        weights[0].scale(values, scale);
        store(out + column, values);
    }
}

KERNEL_MIN(rms_norm, 256, 3, (element* __restrict__ out, const element* __restrict__ x, const float* __restrict__ weight, int width, float eps)) {
    SHARED float parts[THREADS / 32];
    const u64 row = (u64)blockIdx.x * width;
    norm_row<false>(out + row, nullptr, x + row, weight, width, eps, parts);
}

KERNEL_MIN(add_rms_norm, 256, 3,
       (element* __restrict__ out, element* __restrict__ residual, const element* __restrict__ x, const float* __restrict__ weight,
        int width, float eps)) {
    SHARED float parts[THREADS / 32];
    const u64 row = (u64)blockIdx.x * width;
    norm_row<true>(out + row, residual + row, x + row, weight, width, eps, parts);
}

// A warp per head. head_dim is a multiple of 8.
KERNEL(head_norm, 256,
       (element* __restrict__ qkv, const float* __restrict__ q_weight, const float* __restrict__ k_weight, int q_heads, int kv_heads,
        int head_dim, float eps)) {
    const int number = blockIdx.y * (THREADS / 32) + threadIdx.x / 32;
    if (number >= q_heads + kv_heads) return;
    const float* weight = number < q_heads ? q_weight : k_weight;
    element* head = qkv + (u64)blockIdx.x * (q_heads + 2 * kv_heads) * head_dim + (u64)number * head_dim;
    const int first = threadIdx.x % 32 * PACK;
    float values[PACK];
    float squares = 0.0f;
    for (int column = first; column < head_dim; column += 32 * PACK) {
        load(head + column, values);
#pragma unroll
        for (int i = 0; i < PACK; ++i) squares = fmaf(values[i], values[i], squares);
    }
    const float scale = 1.0f / sqrtf(warp_sum(squares) / head_dim + eps);
    for (int column = first; column < head_dim; column += 32 * PACK) {
        load(head + column, values);
        Weights weights;
        weights.load(weight + column);
        weights.scale(values, scale);
        store(head + column, values);
    }
}
