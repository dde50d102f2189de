//! What a device reached in the simplest programs: the denominators of every share of a ceiling that a report states.
//!
//! Measured on the machine at hand; nothing here is taken from a data sheet.

use serde::{Deserialize, Serialize};

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CeilingKind {
    /// Reading memory far larger than the caches.
    MemoryRead,
    /// Copying it; bytes read plus bytes written.
    MemoryCopy,
    /// `a = b + s c` on it (McCalpin's triad); bytes read plus bytes written.
    MemoryTriad,
    /// Reading a part of the level-2 cache again and again.
    CacheRead,
    /// One large matrix product; a multiply-add is two operations.
    MatrixProduct,
    /// The matrix units alone, operands in registers; a multiply-add is two operations.
    MatrixUnits,
    /// Copying pinned host memory to the device.
    HostToDevice,
    /// Copying device memory to pinned host memory.
    DeviceToHost,
    /// One kernel that does nothing, many started back to back.
    Launch,
    /// One recording of many kernels that do nothing, played back to back.
    GraphReplay,
    /// One more kernel in such a recording.
    GraphNode,
}

impl CeilingKind {
    /// Name in tables.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::MemoryRead => "memory read",
            Self::MemoryCopy => "memory copy",
            Self::MemoryTriad => "memory triad",
            Self::CacheRead => "L2 read",
            Self::MatrixProduct => "matrix product",
            Self::MatrixUnits => "matrix units",
            Self::HostToDevice => "host to device",
            Self::DeviceToHost => "device to host",
            Self::Launch => "kernel launch",
            Self::GraphReplay => "graph replay",
            Self::GraphNode => "graph node",
        }
    }

    /// Unit of its value.
    #[must_use]
    pub const fn unit(self) -> CeilingUnit {
        match self {
            Self::MatrixProduct | Self::MatrixUnits => CeilingUnit::FlopPerS,
            Self::Launch | Self::GraphReplay | Self::GraphNode => CeilingUnit::Seconds,
            _ => CeilingUnit::BytesPerS,
        }
    }
}

/// Unit of a ceiling. Rates are better when higher, seconds when lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CeilingUnit {
    /// Bytes a second.
    BytesPerS,
    /// Floating-point operations a second.
    FlopPerS,
    /// Seconds.
    Seconds,
}

/// One ceiling.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// What was measured.
    pub kind: CeilingKind,
    /// Element type of a product, such as `bf16`; `None` where it has no meaning.
    pub element: Option<String>,
    /// Whose code: `plimsoll`, `cublaslt candidate 3`, `gemm`.
    pub by: String,
    /// Size of the problem, such as `8192^3` or `4.00 GiB`.
    pub size: String,
    /// Unit of the values.
    pub unit: CeilingUnit,
    /// The best pass: the ceiling.
    pub best: f64,
    /// The median pass.
    pub median: f64,
    /// Measured passes.
    pub repeats: u32,
    /// How much longer nine in ten passes took than the fastest at most, as a share of it; 0 or more. One hiccup does not count.
    pub spread: f64,
}

/// A ceiling that was not measured, or in a way that a reader must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CeilingNote {
    /// Which.
    pub kind: CeilingKind,
    /// Why, and what to do.
    pub why: String,
}

/// All ceilings of one device, in the order in which they were measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CeilingsRecord {
    /// The device's name.
    pub device: String,
    /// Instruction set or architecture that the kernels were made for.
    pub instructions: String,
    /// What every output says of them.
    pub labels: Vec<String>,
    /// The ceilings.
    pub ceilings: Vec<Ceiling>,
    /// What is missing or reduced.
    pub notes: Vec<CeilingNote>,
    /// Seconds that measuring took, without making the device ready.
    pub seconds: f64,
}

impl CeilingsRecord {
    /// The best value of a kind, whoever computed it, and for products of one element type; `None` where it was not measured.
    #[must_use]
    pub fn best(&self, kind: CeilingKind, element: Option<&str>) -> Option<f64> {
        let of_kind = self.ceilings.iter().filter(|ceiling| ceiling.kind == kind);
        let values = of_kind.filter(|ceiling| element.is_none() || ceiling.element.as_deref() == element).map(|ceiling| ceiling.best);
        match kind.unit() {
            CeilingUnit::Seconds => values.min_by(f64::total_cmp),
            CeilingUnit::BytesPerS | CeilingUnit::FlopPerS => values.max_by(f64::total_cmp),
        }
    }
}
