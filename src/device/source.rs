//! Where weights come from: bytes that somebody else keeps alive, or random numbers of a realistic scale.
//!
//! No file is opened here; the model's loader maps files and hands over ranges of them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::rng;

/// Type of one stored weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Element {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl Element {
    /// Size of one element.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Name as in safetensors, lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// A range of bytes whose owner (a memory map, a vector) is shared.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl SharedBytes {
    /// `range` of `owner`, or `None` when it does not lie inside.
    #[must_use]
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        (*owner).as_ref().get(range.clone())?;
        Some(Self { owner, range })
    }

    /// All of a vector.
    #[must_use]
    pub fn from_vec(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Arc::new(bytes), range }
    }

    /// The bytes; empty should the owner have shrunk since.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        (*self.owner).as_ref().get(self.range.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SharedBytes").field("range", &self.range).finish_non_exhaustive()
    }
}

/// Values of a matrix part or of a vector part.
#[derive(Clone, Debug)]
pub enum Values {
    /// Little-endian elements, row-major.
    Mapped(SharedBytes),
    /// Bell-shaped random numbers, element `i` being [`random_element`] of `seed` and `i`, rounded to the element
    /// type: equal whatever the thread count. Never zeros: zeros would make a processor look faster.
    Random {
        /// Seed of this part; give each part its own (`rng::derive(seed, name)`).
        seed: u64,
        /// Mean: 0 for matrices, 1 for norm weights.
        mean: f32,
        /// Standard deviation, above 0.
        deviation: f32,
    },
}

/// One part of a matrix: `out` rows of `width` inputs.
#[derive(Clone, Debug)]
pub struct MatrixSource {
    /// Name for messages, as in the checkpoint.
    pub name: String,
    /// Rows.
    pub out: usize,
    /// Elements of a row, `in`.
    pub width: usize,
    /// Type of the elements.
    pub element: Element,
    /// The elements.
    pub values: Values,
}

/// One part of a vector.
#[derive(Clone, Debug)]
pub struct VectorSource {
    /// Name for messages, as in the checkpoint.
    pub name: String,
    /// Elements.
    pub len: usize,
    /// Type of the elements.
    pub element: Element,
    /// The elements.
    pub values: Values,
}

/// Element `index` of random weights: the sum of four 16-bit uniform numbers, centred and scaled. Bell-shaped within
/// 3.5 deviations, exact in integers up to the last step, and cheap enough to make billions.
#[must_use]
#[inline]
pub fn random_element(seed: u64, index: u64, mean: f32, deviation: f32) -> f32 {
    let bits = rng::at(seed, index);
    let sum = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
    // Four uniform numbers on 0..=65535: mean 131070, variance 4 (2^32 - 1) / 12.
    let centred = (sum as i32 - 131_070) as f32 / 37_837.227;
    mean + deviation * centred
}
