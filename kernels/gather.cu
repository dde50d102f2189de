// The rows whose logits are wanted: out[i] = x[rows[i]].
//
//   gather_rows    grid(rows), block 128
//
// width is a multiple of 8.
//
// Versions
//   1. A block copies a row, 16 bytes a thread and turn.
// Measured: not yet run on a GPU. Bound: latency; a row is a few kilobytes.

#include "vector.cuh"

KERNEL(gather_rows, 128, (element* __restrict__ out, const element* __restrict__ x, const u32* __restrict__ rows, int width)) {
    const uint4* from = reinterpret_cast<const uint4*>(x + (u64)rows[blockIdx.x] * width);
    uint4* to = reinterpret_cast<uint4*>(out + (u64)blockIdx.x * width);
#pragma unroll 4
    for (int i = threadIdx.x; i < width / PACK; i += 128) to[i] = from[i];
}
