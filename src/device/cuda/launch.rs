//! Starting a kernel: its grid, and its arguments as the driver wants them.

use std::ffi::c_void;

use cudarc::driver::sys;

use crate::device::cuda::driver::{Function, Stream, succeed};
use crate::device::error::DeviceError;

/// One argument. The driver reads as many of its low bytes as the kernel's parameter has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arg(u64);

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Self {
        Self(u64::from(value))
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self(u64::from(value.to_bits()))
    }
}

impl From<usize> for Arg {
    /// Kernels count in 32 bits.
    fn from(value: usize) -> Self {
        Self(u64::from(u32::try_from(value).expect("a width or a count fits 32 bits")))
    }
}

/// Most parameters of a kernel.
const MOST: usize = 24;

/// A kernel with its grid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch<'a> {
    pub(super) stream: &'a Stream,
    pub(super) function: Function,
    pub(super) grid: (usize, usize, usize),
    pub(super) block: u32,
}

impl<'a> Launch<'a> {
    /// A grid of one dimension, by its number of blocks.
    pub(super) const fn over(stream: &'a Stream, function: Function, blocks: usize, block: u32) -> Self {
        Self { stream, function, grid: (blocks, 1, 1), block }
    }

    /// Queues it. An empty grid is nothing to do.
    pub(super) fn with(self, args: &[Arg]) -> Result<(), DeviceError> {
        let (x, y, z) = self.grid;
        if x == 0 || y == 0 || z == 0 {
            return Ok(());
        }
        assert!(args.len() <= MOST, "a kernel has at most {MOST} parameters");
        let mut values = [0_u64; MOST];
        let mut pointers = [std::ptr::null_mut::<c_void>(); MOST];
        for (index, arg) in args.iter().enumerate() {
            values[index] = arg.0;
            pointers[index] = (&raw mut values[index]).cast();
        }
        // SAFETY: the parameters are those that the kernel's contract (its head comment) lists, in order; the driver copies
        // them before it returns. The byte order of every CUDA host is little-endian, so the low bytes come first.
        let result = unsafe {
            sys::cuLaunchKernel(
                self.function.raw,
                x as u32,
                y as u32,
                z as u32,
                self.block,
                1,
                1,
                0,
                self.stream.raw,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        succeed(result, "start a kernel")
    }
}
