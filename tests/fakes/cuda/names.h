// CUDA's vector types and arithmetic for host compilers, under CUDA's names. What is rounded once there is rounded
// once here: the __f..._rn forms are never fused, other products and sums may be, as NVRTC's --fmad=true does.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

struct uint3 { unsigned x, y, z; };
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

#define SIMT_VECTORS(T, name)                                                                            \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                                   \
    struct name##3 { T x, y, z; };                                                                       \
    struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; };                   \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                           \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                   \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define uint3 simt_unused_uint3
SIMT_VECTORS(unsigned, uint)
#undef uint3
SIMT_VECTORS(float, float)
SIMT_VECTORS(int, int)
SIMT_VECTORS(unsigned short, ushort)
SIMT_VECTORS(unsigned char, uchar)
#undef SIMT_VECTORS
struct alignas(16) ulonglong2 { unsigned long long x, y; };
struct alignas(16) double2 { double x, y; };

#define warpSize 32
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) alignas(n)

namespace simt {

template <class To, class From>
inline To reinterpret(From value) {
    static_assert(sizeof(To) == sizeof(From), "bits are kept");
    To bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// The same value, of which the compiler knows nothing: what it is computed from cannot be fused with what uses it.
template <class T>
inline T opaque(T value) {
#if defined(__x86_64__)
    asm("" : "+x"(value));
#else
    asm("" : "+w"(value));
#endif
    return value;
}

}  // namespace simt

inline unsigned __float_as_uint(float value) { return simt::reinterpret<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return simt::reinterpret<float>(bits); }
inline int __float_as_int(float value) { return simt::reinterpret<int>(value); }
inline float __int_as_float(int bits) { return simt::reinterpret<float>(bits); }
inline long long __double_as_longlong(double value) { return simt::reinterpret<long long>(value); }
inline double __longlong_as_double(long long bits) { return simt::reinterpret<double>(bits); }

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }
inline int __clzll(long long bits) { return bits == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(bits)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>((static_cast<unsigned long long>(a) * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}

inline float __fadd_rn(float a, float b) { return simt::opaque(simt::opaque(a) + simt::opaque(b)); }
inline float __fsub_rn(float a, float b) { return simt::opaque(simt::opaque(a) - simt::opaque(b)); }
inline float __fmul_rn(float a, float b) { return simt::opaque(simt::opaque(a) * simt::opaque(b)); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dadd_rn(double a, double b) { return simt::opaque(simt::opaque(a) + simt::opaque(b)); }
inline double __dsub_rn(double a, double b) { return simt::opaque(simt::opaque(a) - simt::opaque(b)); }
inline double __dmul_rn(double a, double b) { return simt::opaque(simt::opaque(a) * simt::opaque(b)); }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __ull2float_rn(unsigned long long a) { return static_cast<float>(a); }
inline double __ull2double_rn(unsigned long long a) { return static_cast<double>(a); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }

inline float rsqrtf(float value) { return 1.0f / std::sqrt(value); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
#define __expf(value) std::exp(static_cast<float>(value))
#define __logf(value) std::log(static_cast<float>(value))
#define __sinf(value) std::sin(static_cast<float>(value))
#define __cosf(value) std::cos(static_cast<float>(value))
using std::isinf;
using std::isnan;

// CUDA's min and max take mixed signedness as C does and are overloaded for floats.
template <class A, class B>
inline auto min(A a, B b) -> decltype(a + b) {
    return a < b ? a : b;
}
template <class A, class B>
inline auto max(A a, B b) -> decltype(a + b) {
    return a > b ? a : b;
}

template <class T>
inline T __ldg(const T* at) {
    return *at;
}
template <class T>
inline T __ldcs(const T* at) {
    return *at;
}
template <class T>
inline void __stcs(T* at, T value) {
    *at = value;
}

// Blocks run one after the other and a fiber is never interrupted: plain operations are atomic.
template <class T, class U>
inline T atomicAdd(T* at, U value) {
    T old = *at;
    *at = old + static_cast<T>(value);
    return old;
}
template <class T, class U>
inline T atomicMax(T* at, U value) {
    T old = *at;
    *at = old > static_cast<T>(value) ? old : static_cast<T>(value);
    return old;
}
template <class T, class U>
inline T atomicMin(T* at, U value) {
    T old = *at;
    *at = old < static_cast<T>(value) ? old : static_cast<T>(value);
    return old;
}
template <class T, class U>
inline T atomicOr(T* at, U value) {
    T old = *at;
    *at = old | static_cast<T>(value);
    return old;
}
template <class T, class U>
inline T atomicExch(T* at, U value) {
    T old = *at;
    *at = static_cast<T>(value);
    return old;
}
template <class T, class U, class V>
inline T atomicCAS(T* at, U expected, V value) {
    T old = *at;
    if (old == static_cast<T>(expected)) *at = static_cast<T>(value);
    return old;
}
inline void __threadfence() {}
inline void __threadfence_block() {}
