// The next token of each row of logits: src/device/cpu/sample.rs on the device.
//
//   sample    grid(rows), block 1024
//
// Greedy at a temperature of 0; else the top_k highest stay (0: all), of these the fewest highest whose weights e^((logit - highest)
// / temperature) together reach top_p of the total, and of these one is drawn in the order of ids with the uniform number of
// (seed, position). Ties go to the lowest id. NaN is never chosen; a row of nothing else gives 0xffffffff. vocab is any up to
// 524288. The choice is a function of the row alone: every sum is of integers or in a fixed order.
//
// Weights are double, as on the host: single ones would move the draw among the ids of a flat distribution. Where the total at
// a cut is compared with top_p they are rounded to 2^-39 of the highest, so that sums in any order agree.
//
// Versions
//   1. Radix selection of the cut key in three passes with histograms in shared memory (32-bit limbs: 64-bit atomics are a loop
//      there); draws and ties by descent: 32 warps sum a part each, the part that holds the answer is divided again. A row of 128k
//      logits is read 5 times for a plain draw, from L2, and 18 times with both cuts.
// Measured: not yet run on a GPU. Bound: one multiprocessor a row; exp of doubles where these are slow (sm_86, sm_89, sm_120).
//      More blocks a row is what to try if it shows.

#include "random.cuh"

constexpr int THREADS = 1024;
constexpr int WARPS = THREADS / 32;
// The selection's digit, highest first: 11, 11 and 10 bits.
constexpr int BINS = 2048;
// A measure of up to 39 bits is added up in three limbs, each with room for 2^19 summands.
constexpr int LIMB = 13;
constexpr u32 NOBODY = 0xffffffffu;

struct Row {
    const float* logits;
    int vocab;
    float highest;
    double temperature;

    // 0 also for what is no number, as minus infinity over an infinite temperature.
    DEV double weight(float logit) const {
        const double weight = exp((double)(logit - highest) / temperature);
        return weight > 0.0 ? weight : 0.0;
    }
};

struct Scratch {
    u32* bins;      // 3 x BINS
    double* parts;  // WARPS
    u64* sums;      // WARPS
    u64* rest;      // 1
    u32* digit;     // 1
};

// Rises as the total order of floats does: minus zero lies below zero.
DEV u32 order(float value) {
    const u32 bits = __float_as_uint(value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// What stays: keys above `key`, and of those that equal it the ids up to `last`. NaN never does.
struct Cut {
    u32 key;
    int last;

    DEV bool keeps(float logit, int id) const {
        const u32 own = order(logit);
        return logit == logit && (own > key || (own == key && id <= last));
    }
};

// The highest logit and its lowest id; minus infinity and NOBODY where there is no number. The same in every thread.
DEV float highest_of(const float* logits, int vocab, double* parts, u32& id) {
    float best = minus_infinity();
    id = NOBODY;
    for (u32 i = threadIdx.x; i < (u32)vocab; i += THREADS) {
        const float logit = logits[i];
        if (logit > best || (logit == best && i < id)) {
            best = logit;
            id = i;
        }
    }
    float2* found = reinterpret_cast<float2*>(parts);
    for (int level = 0; level < 2; ++level) {
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) {
            const float other = __shfl_xor_sync(0xffffffffu, best, distance);
            const u32 other_id = __shfl_xor_sync(0xffffffffu, id, distance);
            if (other > best || (other == best && other_id < id)) {
                best = other;
                id = other_id;
            }
        }
        if (level == 1) break;
        if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = make_float2(best, __uint_as_float(id));
        __syncthreads();
        best = found[threadIdx.x % 32].x;
        id = __float_as_uint(found[threadIdx.x % 32].y);
        __syncthreads();
    }
    return best;
}

// The first id at which the running sum of measure(id) exceeds left_of(total), else the last with any measure, else -1.
template <class Measure, class Left>
DEV int first_beyond(int vocab, double* parts, Measure measure, Left left_of) {
    int begin = 0;
    int end = vocab;
    double left = 0.0;
    while (true) {
        const int part = (end - begin + WARPS - 1) / WARPS;
        const int from = begin + threadIdx.x / 32 * part;
        const int to = min(from + part, end);
        double sum = 0.0;
        for (int id = from + threadIdx.x % 32; id < to; id += 32) sum += measure(id);
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
        if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
        __syncthreads();
        if (begin == 0 && end == vocab) {
            double total = 0.0;
            for (int i = 0; i < WARPS; ++i) total += parts[i];
            left = left_of(total);
        }
        int chosen = -1;
        bool beyond = false;
        for (int i = 0; i < WARPS && !beyond; ++i) {
            const double next = parts[i];
            if (!(next > 0.0)) continue;
            chosen = i;
            beyond = left < next;
            if (!beyond) left -= next;
        }
        __syncthreads();
        if (chosen < 0) return -1;
        // Rounding used up the last part: its last id it is.
        if (!beyond) left = -minus_infinity();
        begin += chosen * part;
        end = min(begin + part, end);
        if (part == 1) return begin;
    }
}

// The highest key of which the entries at and above it measure at least target_of(total) together, and in `rest` how much of that
// the entries at the key have to give.
template <class Measure, class Target>
DEV u32 select(const float* logits, int vocab, const Scratch& scratch, Measure measure, Target target_of, u64& rest) {
    u32 prefix = 0;
    u64 target = 0;
    for (int pass = 0; pass < 3; ++pass) {
        const int bits = pass == 2 ? 10 : 11;
        const int shift = pass == 0 ? 21 : pass == 1 ? 10 : 0;
        for (int i = threadIdx.x; i < 3 * BINS; i += THREADS) scratch.bins[i] = 0;
        __syncthreads();
        for (int id = threadIdx.x; id < vocab; id += THREADS) {
            const float logit = logits[id];
            const u32 key = order(logit);
            if ((u64)key >> (shift + bits) != prefix) continue;
            u64 left = measure(logit, id);
#pragma unroll
            for (int limb = 0; limb < 3; ++limb) {
                const u32 low = (u32)left & ((1u << LIMB) - 1);
                if (low != 0) atomicAdd(&scratch.bins[limb * BINS + (key >> shift & ((1u << bits) - 1))], low);
                left >>= LIMB;
            }
        }
        __syncthreads();

        // Thread t has the two bins that come 2 t and 2 t + 1 from the top.
        u64 own[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const u32* bin = scratch.bins + BINS - 1 - 2 * threadIdx.x - i;
            own[i] = bin[0] + ((u64)bin[BINS] << LIMB) + ((u64)bin[2 * BINS] << 2 * LIMB);
        }
        u64 above = own[0] + own[1];
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            const u64 other = __shfl_up_sync(0xffffffffu, above, distance);
            if ((int)threadIdx.x % 32 >= distance) above += other;
        }
        if (threadIdx.x % 32 == 31) scratch.sums[threadIdx.x / 32] = above;
        __syncthreads();
        u64 total = 0;
        above -= own[0] + own[1];
        for (int i = 0; i < WARPS; ++i) {
            if (i < (int)threadIdx.x / 32) above += scratch.sums[i];
            total += scratch.sums[i];
        }
        if (pass == 0) target = target_of(total);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if (above < target && target <= above + own[i]) {
                *scratch.digit = BINS - 1 - 2 * threadIdx.x - i;
                *scratch.rest = target - above;
            }
            above += own[i];
        }
        __syncthreads();
        prefix = prefix << bits | *scratch.digit;
        target = *scratch.rest;
    }
    rest = target;
    return prefix;
}

// The cut that leaves the first `count` of the entries with `key`.
DEV Cut cut_at(const float* logits, int vocab, double* parts, u32 key, u64 count) {
    const int last = first_beyond(
        vocab, parts, [&](int id) { return order(logits[id]) == key ? 1.0 : 0.0; },
        [&](double) { return (double)count - 1.0; });
    return Cut{key, last};
}

KERNEL(sample, 1024,
       (u32* __restrict__ token_ids, const float* __restrict__ logits, int vocab, const float* __restrict__ temperature,
        const u32* __restrict__ top_k, const float* __restrict__ top_p, const u64* __restrict__ seeds, const u64* __restrict__ positions)) {
    SHARED u32 bins[3 * BINS];
    SHARED double parts[WARPS];
    SHARED u64 sums[WARPS];
    SHARED u64 rest_found[1];
    SHARED u32 digit[1];
    const Scratch scratch{bins, parts, sums, rest_found, digit};
    const int number = blockIdx.x;
    const float* row_logits = logits + (u64)number * vocab;

    u32 best;
    const float highest = highest_of(row_logits, vocab, parts, best);
    const bool finite = (__float_as_uint(highest) & 0x7fffffffu) < 0x7f800000u;
    if (!(temperature[number] > 0.0f) || !finite) {
        if (threadIdx.x == 0) token_ids[number] = best;
        return;
    }
    const Row row{row_logits, vocab, highest, (double)temperature[number]};

    Cut cut{0, 0};
    u64 rest;
    if (top_k[number] != 0 && top_k[number] < (u32)vocab) {
        const u64 wanted = top_k[number];
        const u32 key = select(
            row_logits, vocab, scratch, [](float logit, int) { return (u64)(logit == logit); },
            [&](u64 total) { return min(wanted, total); }, rest);
        cut = cut_at(row_logits, vocab, parts, key, rest);
    }
    if (top_p[number] < 1.0f) {
        const double share = top_p[number];
        const auto rounded = [&](float logit) { return (u64)(row.weight(logit) * (double)((1ull << 3 * LIMB) - 1) + 0.5); };
        const u32 key = select(
            row_logits, vocab, scratch,
            [&](float logit, int id) { return cut.keeps(logit, id) ? rounded(logit) : 0; },
            [&](u64 total) {
                // The first integer that is not below share x total, and at least one.
                const double wanted = share * (double)total;
                const u64 whole = wanted > 1.0 ? (u64)wanted : 1;
                return (double)whole < wanted ? whole + 1 : whole;
            },
            rest);
        const u64 each = rounded(__uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key));
        cut = cut_at(row_logits, vocab, parts, key, (rest + each - 1) / each);
    }

    const double uniform = uniform_at(seeds[number], positions[number]);
    const int chosen = first_beyond(
        vocab, parts,
        [&](int id) {
            const float logit = row_logits[id];
            return cut.keeps(logit, id) ? row.weight(logit) : 0.0;
        },
        [&](double total) { return uniform * total; });
    if (threadIdx.x == 0) token_ids[number] = chosen;
}
