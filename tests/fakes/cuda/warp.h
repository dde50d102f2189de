// Barriers, shuffles, votes, matrix fragments and asynchronous copies: what threads of a block do together. Twins of
// the CUDA functions and of the PTX helpers in kernels/compat.cuh.
//
// The last lane to reach a collective performs it for all, on the operands the others left on their stacks.
#pragma once

inline void __syncthreads(int line = __builtin_LINE()) { simt::barrier(line); }

namespace simt {

inline void nothing(void* const*, unsigned) {}

template <class T>
struct Shuffle {
    T value;
    unsigned source;  // a lane; 32 and above: the value stays
    T result;
    static void perform(void* const* operands, unsigned mask) {
        for (unsigned lane = 0; lane < 32; ++lane) {
            if ((mask >> lane & 1) == 0) continue;
            Shuffle& own = *static_cast<Shuffle*>(operands[lane]);
            if (own.source >= 32) {
                own.result = own.value;
            } else if ((mask >> own.source & 1) == 0) {
                fault(Code::launch_failed, "lane %u of a shuffle reads lane %u, which takes no part", lane, own.source);
            } else {
                own.result = static_cast<Shuffle*>(operands[own.source])->value;
            }
        }
    }
};

template <class T>
inline T shuffle(const char* name, unsigned mask, T value, unsigned source, int line) {
    Shuffle<T> operands{value, source, value};
    collective(name, mask, Shuffle<T>::perform, &operands, line);
    return operands.result;
}

struct Vote {
    bool value;
    unsigned ballot;
    static void perform(void* const* operands, unsigned mask) {
        unsigned ballot = 0;
        for (unsigned lane = 0; lane < 32; ++lane) {
            if (mask >> lane & 1) ballot |= unsigned(static_cast<Vote*>(operands[lane])->value) << lane;
        }
        for (unsigned lane = 0; lane < 32; ++lane) {
            if (mask >> lane & 1) static_cast<Vote*>(operands[lane])->ballot = ballot;
        }
    }
};

inline unsigned vote(const char* name, unsigned mask, bool value, int line) {
    Vote operands{value, 0};
    collective(name, mask, Vote::perform, &operands, line);
    return operands.ballot;
}

template <class T>
struct Reduce {
    T value;
    T (*combine)(T, T);
    static void perform(void* const* operands, unsigned mask) {
        Reduce& first = *static_cast<Reduce*>(operands[__builtin_ctz(mask)]);
        T total = first.value;
        for (unsigned rest = mask & (mask - 1); rest != 0; rest &= rest - 1) {
            total = first.combine(total, static_cast<Reduce*>(operands[__builtin_ctz(rest)])->value);
        }
        for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
            static_cast<Reduce*>(operands[__builtin_ctz(rest)])->value = total;
        }
    }
};

template <class T>
inline T reduce(const char* name, unsigned mask, T value, T (*combine)(T, T), int line) {
    Reduce<T> operands{value, combine};
    collective(name, mask, Reduce<T>::perform, &operands, line);
    return operands.value;
}

// Whole-warp collectives, in matrix.cpp.
struct Mma {
    float* d;
    const unsigned *a, *b;
    static void perform(void* const* operands, unsigned mask);
};
struct LoadMatrix {
    unsigned* r;
    const void* row;
    unsigned tiles;
    bool transposed;
    static void perform(void* const* operands, unsigned mask);
};

inline void load_matrix(const char* name, unsigned* r, const void* row, unsigned tiles, bool transposed, int line) {
    LoadMatrix operands{r, row, tiles, transposed};
    collective(name, 0xffffffffu, LoadMatrix::perform, &operands, line);
}

void start_copy(void* shared, const void* global, bool valid);
// Lands every group of this thread but the last `still_out`.
void land_copies(unsigned still_out);

}  // namespace simt

inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    simt::collective("__syncwarp", mask, simt::nothing, nullptr, line);
}

// As in CUDA, `width` (a power of two) splits the warp; a source outside of the own part leaves the value.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
    unsigned lane = simt::self().lane, first = lane & ~(width - 1u);
    return simt::shuffle("__shfl_sync", mask, value, first + (source & (width - 1)), line);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32, int line = __builtin_LINE()) {
    unsigned lane = simt::self().lane, last = lane | (width - 1u), source = lane ^ other;
    return simt::shuffle("__shfl_xor_sync", mask, value, source <= last ? source : 32, line);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, int line = __builtin_LINE()) {
    unsigned lane = simt::self().lane, last = lane | (width - 1u), source = lane + by;
    return simt::shuffle("__shfl_down_sync", mask, value, source <= last ? source : 32, line);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, int line = __builtin_LINE()) {
    unsigned lane = simt::self().lane, first = lane & ~(width - 1u);
    return simt::shuffle("__shfl_up_sync", mask, value, lane >= first + by ? lane - by : 32, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return simt::vote("__ballot_sync", mask, predicate != 0, line);
}
inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return simt::vote("__any_sync", mask, predicate != 0, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return simt::vote("__all_sync", mask, predicate != 0, line) == mask;
}
template <class T>
inline T __reduce_add_sync(unsigned mask, T value, int line = __builtin_LINE()) {
    return simt::reduce<T>("__reduce_add_sync", mask, value, [](T a, T b) { return T(a + b); }, line);
}
template <class T>
inline T __reduce_max_sync(unsigned mask, T value, int line = __builtin_LINE()) {
    return simt::reduce<T>("__reduce_max_sync", mask, value, [](T a, T b) { return a > b ? a : b; }, line);
}
template <class T>
inline T __reduce_min_sync(unsigned mask, T value, int line = __builtin_LINE()) {
    return simt::reduce<T>("__reduce_min_sync", mask, value, [](T a, T b) { return a < b ? a : b; }, line);
}

// To the nearest bf16, halfway cases to even; every NaN becomes the one NaN that cvt.rn.bf16.f32 makes.
inline unsigned short bf16_bits(float value) {
    unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int line = __builtin_LINE()) {
    simt::Mma operands{d, a, b};
    simt::collective("mma_m16n8k16", 0xffffffffu, simt::Mma::perform, &operands, line);
}
inline void ldmatrix_x4(unsigned (&r)[4], const void* shared, int line = __builtin_LINE()) {
    simt::load_matrix("ldmatrix_x4", r, shared, 4, false, line);
}
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* shared, int line = __builtin_LINE()) {
    simt::load_matrix("ldmatrix_x4_trans", r, shared, 4, true, line);
}
inline void ldmatrix_x2(unsigned (&r)[2], const void* shared, int line = __builtin_LINE()) {
    simt::load_matrix("ldmatrix_x2", r, shared, 2, false, line);
}
inline void ldmatrix_x2_trans(unsigned (&r)[2], const void* shared, int line = __builtin_LINE()) {
    simt::load_matrix("ldmatrix_x2_trans", r, shared, 2, true, line);
}

inline void copy_async_16(void* shared, const void* global, bool valid) { simt::start_copy(shared, global, valid); }
inline void copy_async_commit() { ++simt::self().group; }
template <int N>
inline void copy_async_wait() {
    simt::land_copies(N);
}

inline uint4 load_streaming(const uint4* global) {
    if (reinterpret_cast<std::uintptr_t>(global) % 16 != 0) {
        simt::fault(simt::Code::misaligned_address, "load_streaming from %p, which is not a multiple of 16",
                    static_cast<const void*>(global));
    }
    return *global;
}
