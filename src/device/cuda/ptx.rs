//! The kernels as PTX, embedded: for a node that has a driver and no compiler. The driver makes machine code of it.
//!
//! Made by NVRTC 12.1 for `compute_80`, so that any driver of CUDA 12.1 or newer takes it on any GPU there is a kernel for.
//! `tests/nvrtc` makes the files (`PLIMSOLL_GOLDEN=write`) and fails where they are not of these sources.

use crate::device::cuda::program::Program;
use crate::device::source::Element;

/// What they were compiled for.
pub const ARCHITECTURE: &str = "compute_80";
/// By which version of NVRTC.
pub const COMPILER: &str = "12.1";

/// The PTX of a program; `None` where what is embedded is damaged.
pub(super) fn of(program: &Program, element: Element) -> Option<Vec<u8>> {
    let [bf16, f32] = program.ptx;
    zstd::decode_all(if element == Element::F32 { f32 } else { bf16 }).ok()
}
