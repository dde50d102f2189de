//! The kernels as PTX, embedded: for a node that has a driver and no compiler. The driver makes machine code of it.
//!
//! Made by NVRTC 12.1 for `compute_80`, so that any driver of CUDA 12.1 or newer takes it on any GPU there is a kernel for.
//! `tests/nvrtc` makes the files (`PLIMSOLL_GOLDEN=write`) and fails where they are not of these sources.

use crate::device::source::Element;

/// What they were compiled for.
pub const ARCHITECTURE: &str = "compute_80";
/// By which version of NVRTC.
pub const COMPILER: &str = "12.1";

macro_rules! embedded {
    ($($name:literal),+ $(,)?) => {
        /// Program, in bf16 and in f32, each compressed by zstd.
        const EMBEDDED: &[(&str, &[u8], &[u8])] = &[$((
            $name,
            include_bytes!(concat!("../../../kernels/ptx/", $name, ".bf16.ptx.zst")),
            include_bytes!(concat!("../../../kernels/ptx/", $name, ".f32.ptx.zst")),
        )),+];
    };
}

embedded![
    "activation",
    "attention_decode",
    "attention_prefill",
    "ceilings",
    "embed",
    "gather",
    "matmul",
    "norm",
    "rope_kv",
    "sample",
    "weights",
];

/// The PTX of a program; `None` where there is no such program.
pub(super) fn of(program: &str, element: Element) -> Option<Vec<u8>> {
    let (_, bf16, f32) = EMBEDDED.iter().find(|(name, _, _)| *name == program)?;
    zstd::decode_all(if element == Element::F32 { *f32 } else { *bf16 }).ok()
}
