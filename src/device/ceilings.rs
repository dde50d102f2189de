//! Measured denominators: what a device can do at most, in the same run and with the same threads.
//!
//! A speed is quoted as a share of these. Nothing here is taken from a data sheet.

/// What a device reached in the simplest programs.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Ceilings {
    /// Reading memory far larger than the caches, bytes/s.
    pub read_bytes_per_s: f64,
    /// Copying it, bytes read plus bytes written, bytes/s.
    pub copy_bytes_per_s: f64,
    /// One large f32 matrix product, floating-point operations/s (a multiply-add is two).
    pub f32_flops_per_s: f64,
    /// One large product of bf16 dot products; `None` where the processor has none.
    pub bf16_flops_per_s: Option<f64>,
}
