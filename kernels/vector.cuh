// Sixteen bytes of elements at a time: how every kernel touches memory, and the sums over a warp and a block.
//
// Row widths are multiples of 8 elements and rows start at multiples of their width from an aligned base, so a pack never
// crosses the end of a row and is always aligned.
#pragma once

#include "words.cuh"

// Elements of 16 bytes: 8 of bf16, 4 of f32.
constexpr int PACK = 16 / sizeof(element);

DEV void unpack(const uint4& bits, float (&values)[PACK]) {
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int word = 0; word < 4; ++word) {
        if constexpr (PACK == 8) {
            values[2 * word] = __uint_as_float(words[word] << 16);
            values[2 * word + 1] = __uint_as_float(words[word] & 0xffff0000u);
        } else {
            values[word] = __uint_as_float(words[word]);
        }
    }
}

// Two floats rounded to bf16, the first in the lower half: the layout of mma operands and of memory.
DEV unsigned pack_two(float low, float high) {
    return (unsigned)narrow<bf16>(low).bits | (unsigned)narrow<bf16>(high).bits << 16;
}

DEV uint4 pack(const float (&values)[PACK]) {
    if constexpr (PACK == 8) {
        return make_uint4(pack_two(values[0], values[1]), pack_two(values[2], values[3]), pack_two(values[4], values[5]),
                          pack_two(values[6], values[7]));
    } else {
        return make_uint4(__float_as_uint(values[0]), __float_as_uint(values[1]), __float_as_uint(values[2]),
                          __float_as_uint(values[3]));
    }
}

DEV void load(const element* from, float (&values)[PACK]) { unpack(*reinterpret_cast<const uint4*>(from), values); }

DEV void store(element* to, const float (&values)[PACK]) { *reinterpret_cast<uint4*>(to) = pack(values); }

// What e^x is in powers of 2: e^x = 2^(LOG2_E x).
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float LN_2 = 0.6931471805599453f;

// e^x. Beside bf16 results the fast one is exact enough; f32 must agree with the CPU device.
DEV float exponential(float x) {
    if constexpr (PACK == 8) {
        return exp2_approximate(x * LOG2_E);
    } else {
        return expf(x);
    }
}

// Sum over the 32 lanes, in every lane. All of them must arrive.
DEV float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

DEV float warp_max(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    return value;
}

// Sum over a block of WARPS warps, in every thread, in an order that does not depend on scheduling.
// `parts` has WARPS floats of shared memory that nobody reads any more.
template <int WARPS>
DEV float block_sum(float value, float* parts) {
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int warp = 0; warp < WARPS; ++warp) sum += parts[warp];
    return sum;
}
