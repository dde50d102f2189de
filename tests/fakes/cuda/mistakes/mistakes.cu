// Kernels that are wrong on purpose, one mistake each: what the host device must report.

#include "compat.cuh"

KERNEL(barrier_of_some, 64, (float* out)) {
    if (threadIdx.x < 40) __syncthreads();
    out[threadIdx.x] = 1.0f;
}

KERNEL(barriers_apart, 64, (float* out)) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1.0f;
}

KERNEL(shuffle_of_some, 64, (float* out)) {
    float value = threadIdx.x;
    if (threadIdx.x != 37) value = __shfl_xor_sync(0xffffffffu, value, 1);
    out[threadIdx.x] = value;
}

// `out` has 64 values, up to where memory ends: the last thread writes one more.
KERNEL(write_past_the_end, 64, (float* out)) {
    out[threadIdx.x] = 1.0f;
    if (threadIdx.x == 63) out[64] = 1.0f;
}

KERNEL(write_before_the_beginning, 64, (float* out)) {
    if (threadIdx.x == 0) out[-1] = 1.0f;
}

KERNEL(write_far_away, 64, (float* out)) {
    if (threadIdx.x == 5) out[4096] = 1.0f;
}

KERNEL(index_never_written, 64, (float* out)) {
    SHARED unsigned index[64];
    if (threadIdx.x != 3) index[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[index[threadIdx.x]] = 1.0f;
}

KERNEL(shared_past_the_end, 64, (float* out)) {
    SHARED float values[64];
    values[threadIdx.x + 1] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

KERNEL(shared_past_the_end_by_pointer, 64, (float* out)) {
    SHARED float values[64];
    float* const next = values + 1;
    next[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

KERNEL(shared_never_written, 64, (float* out)) {
    SHARED float values[64];
    if (threadIdx.x != 9) values[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = values[threadIdx.x];
}

KERNEL(vector_misaligned, 64, (float* out)) { *reinterpret_cast<float4*>(out + 1) = make_float4(1.0f, 2.0f, 3.0f, 4.0f); }

KERNEL(divisor_of_zero, 64, (float* out)) { out[threadIdx.x] = 64 / threadIdx.x; }

// Right for 64 values.
KERNEL(ones, 64, (float* out)) { out[threadIdx.x] = 1.0f; }

// Right, within the limits of its launch.
KERNEL(dynamic, 64, (float* out, unsigned count)) {
    DYNAMIC_SHARED(float, values);
    for (unsigned at = threadIdx.x; at < count; at += 64) values[at] = at;
    __syncthreads();
    if (threadIdx.x < count) out[threadIdx.x] = values[threadIdx.x];
}
