// Counter-based random numbers: src/rng.rs, bit for bit.
#pragma once

#include "words.cuh"

// The finaliser of SplitMix64.
DEV u64 mix(u64 value) {
    value += 0x9e3779b97f4a7c15ull;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return value ^ (value >> 31);
}

DEV u64 random_at(u64 seed, u64 index) { return mix(seed ^ mix(index + 0x9e3779b97f4a7c15ull)); }

// Uniform in [0, 1).
DEV double uniform_at(u64 seed, u64 index) { return (double)(random_at(seed, index) >> 11) * (1.0 / 9007199254740992.0); }
