//! Named deterministic streams of random numbers from one seed.
//!
//! Every random choice of the program comes from here, so a run is a function of its seed. Two streams of
//! different names are independent; adding a stream never shifts another one. This is not cryptography.

use rand::SeedableRng;
/// Random numbers of one named stream.
pub type Stream = rand_xoshiro::Xoshiro256PlusPlus;

/// The stream called `name` of `seed`.
#[must_use]
pub fn stream(seed: u64, name: &str) -> Stream {
    Stream::seed_from_u64(derive(seed, name))
}

/// A seed of its own for the part of the run called `name`.
#[must_use]
pub fn derive(seed: u64, name: &str) -> u64 {
    // FNV-1a over the name, then mixed with the seed.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    mix(seed ^ mix(hash))
}

/// A number that depends on `seed` and `index` alone: counter-based, so any element can be made without its
/// predecessors, on any thread or device, in any order.
#[must_use]
pub fn at(seed: u64, index: u64) -> u64 {
    mix(seed ^ mix(index.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// As [`at`], as a uniform number in [0, 1).
#[must_use]
pub fn uniform_at(seed: u64, index: u64) -> f64 {
    (at(seed, index) >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection that spreads every bit.
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
