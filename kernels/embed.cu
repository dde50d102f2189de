// Rows of the embedding table, one for each token of the step.
//
//   embed    grid(rows), block 128
//
// An id with bit 31 set is no id: its other bits say which entry of fed_back, the tokens that the device itself chose in the
// step before, holds it. So the host can prepare a step without waiting for the one before. width is a multiple of 8.
//
// Versions
//   1. A block copies a row, 16 bytes a thread and turn.
// Measured: not yet run on a GPU. Bound: latency; a row is a few kilobytes.

#include "vector.cuh"

KERNEL(embed, 128,
       (element* __restrict__ out, const element* __restrict__ table, const u32* __restrict__ token_ids, const u32* __restrict__ fed_back,
        int width)) {
    u32 id = token_ids[blockIdx.x];
    if (id & 0x80000000u) id = fed_back[id & 0x7fffffffu];
    // Still set: the row before had no number. The host refuses the step when it reads that id; nothing is read astray here.
    if (id & 0x80000000u) id = 0;
    const uint4* from = reinterpret_cast<const uint4*>(table + (u64)id * width);
    uint4* to = reinterpret_cast<uint4*>(out + (u64)blockIdx.x * width);
#pragma unroll 4
    for (int i = threadIdx.x; i < width / PACK; i += 128) to[i] = from[i];
}
