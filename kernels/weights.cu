// Weights on the device: random ones made in place, stored ones converted to the element.
//
//   random_weights                          out[i] = random_element(seed, first + i, mean, deviation)    any grid, block 256
//   convert_f32, convert_f16, convert_bf16  out[i] = in[i], rounded to nearest even                       any grid, block 256
//
// random_weights equals src/device/source.rs bit for bit, so a model of random weights is the same on every device.
//
// Versions
//   1. A grid-stride loop, an element a thread and turn. Done once for each model, bound by the disk or by integer arithmetic.
// Measured: not yet run on a GPU.

#include "random.cuh"


KERNEL(random_weights, 256, (element* __restrict__ out, u64 seed, u64 first, u64 count, float mean, float deviation)) {
    for (u64 i = grid_thread(); i < count; i += grid_threads()) {
        const u64 bits = random_at(seed, first + i);
        const int sum = (int)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
        const float centred = (float)(sum - 131070) / 37837.227f;
        // Product and sum are rounded each: a fused one would differ from the host's.
        out[i] = narrow<element>(__fadd_rn(mean, __fmul_rn(deviation, centred)));
    }
}

KERNEL(convert_f32, 256, (element* __restrict__ out, const float* __restrict__ in, u64 count)) {
    for (u64 i = grid_thread(); i < count; i += grid_threads()) out[i] = narrow<element>(in[i]);
}

// Binary16 to binary32, exactly.
DEV float widen_f16(unsigned short half) {
    const u32 sign = (u32)(half & 0x8000) << 16;
    const u32 exponent = half >> 10 & 31;
    const u32 fraction = half & 0x3ff;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) {
        const float magnitude = (float)fraction * (1.0f / 16777216.0f);
        return sign ? -magnitude : magnitude;
    }
    return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
}

KERNEL(convert_f16, 256, (element* __restrict__ out, const unsigned short* __restrict__ in, u64 count)) {
    for (u64 i = grid_thread(); i < count; i += grid_threads()) out[i] = narrow<element>(widen_f16(in[i]));
}

KERNEL(convert_bf16, 256, (element* __restrict__ out, const unsigned short* __restrict__ in, u64 count)) {
    for (u64 i = grid_thread(); i < count; i += grid_threads()) out[i] = narrow<element>(__uint_as_float((u32)in[i] << 16));
}
