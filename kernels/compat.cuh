// The names every kernel is written in, with two faces: CUDA as NVRTC compiles it, and the host device of
// tests/fakes/cuda, which runs the same source thread by thread. It is the only file with inline PTX, and each such
// helper has a host twin of the same meaning in tests/fakes/cuda. No system header is included.
#pragma once

// A brain float: the upper half of an f32. Kernels compute in f32 and store `element`.
struct bf16 {
    unsigned short bits;
};

#if defined(ELEMENT_BF16)
using element = bf16;
#elif defined(ELEMENT_F32)
using element = float;
#else
#error "compile with -DELEMENT_F32 or -DELEMENT_BF16"
#endif

#ifdef __CUDACC_RTC__

#define DEV __device__ __forceinline__
#define SHARED __shared__
// Shared memory of the size given at launch, as a `type*`; one block of memory under every name.
#define DYNAMIC_SHARED(type, name)                                   \
    extern __shared__ __align__(128) unsigned char dynamic_shared[]; \
    type* const name = reinterpret_cast<type*>(dynamic_shared)
#define KERNEL(name, THREADS, ARGUMENTS) extern "C" __global__ void __launch_bounds__(THREADS) name ARGUMENTS
#define KERNEL_MIN(name, THREADS, MIN_BLOCKS, ARGUMENTS) \
    extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS) name ARGUMENTS

DEV unsigned short bf16_bits(float value) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// By the compiler's own conversion and not by inline PTX: so constant offsets end up in the instructions and not in registers.
DEV unsigned shared_address(const void* shared) { return static_cast<unsigned>(__cvta_generic_to_shared(shared)); }

// d += a * b for a 16x16 tile a (row major) and a 16x8 tile b (column major) spread over a warp: the fragment layout
// of mma.m16n8k16 in the PTX ISA.
DEV void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Loads 8x8 tiles of 16-bit values: lane 8t+i names row i of tile t (16 bytes, aligned).
DEV void ldmatrix_x4(unsigned (&r)[4], const void* shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared))
                 : "memory");
}

DEV void ldmatrix_x4_trans(unsigned (&r)[4], const void* shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared))
                 : "memory");
}

DEV void ldmatrix_x2(unsigned (&r)[2], const void* shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(shared))
                 : "memory");
}

DEV void ldmatrix_x2_trans(unsigned (&r)[2], const void* shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(shared))
                 : "memory");
}

// Starts a copy of 16 bytes to shared memory, or of 16 zero bytes if not `valid` (`global` is not read then). The
// bytes are there after the copy_async_wait that covers it, for other threads after a barrier as well.
DEV void copy_async_16(void* shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

DEV void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most the last N groups of this thread are still on their way.
template <int N>
DEV void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// A read of memory that is used once and written by nobody meanwhile: it does not displace what the L1 cache holds.
DEV uint4 load_streaming(const uint4* global) {
    uint4 value;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(global));
    return value;
}

// 2^value to within two units in the last place; results below 2^-126 are 0. One instruction, where __expf and exp2f spend
// four more on such results.
DEV float exp2_approximate(float value) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
}

#else
#include "simt.h"

DEV float exp2_approximate(float value) { return exp2f(value); }
#endif

DEV float widen(bf16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }
DEV float widen(float value) { return value; }

// To the nearest T, halfway cases to even.
template <class T>
DEV T narrow(float value);
template <>
DEV float narrow<float>(float value) {
    return value;
}
template <>
DEV bf16 narrow<bf16>(float value) {
    return bf16{bf16_bits(value)};
}
