//! Memory with owners: on the device, and pinned on the host for copies that do not block.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one reason holds for every call of the file, and is stated above the first")]

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys;

use crate::device::cuda::driver::{Context, Stream, succeed};
use crate::device::error::DeviceError;

/// One allocation on the device.
#[derive(Debug)]
pub(super) struct Buffer {
    context: Arc<Context>,
    address: u64,
    bytes: u64,
}

impl Buffer {
    /// Allocates `bytes` for `what`, which is named when they are not there.
    pub(super) fn new(context: &Arc<Context>, what: &str, bytes: u64) -> Result<Self, DeviceError> {
        let (free, _) = context.memory()?;
        if bytes > free {
            return Err(out_of_memory(what, bytes, free));
        }
        let mut address = 0;
        // SAFETY (all calls of this file): the context is current, pointers are to values that live through the call, and
        // the ranges were checked against the owners' lengths.
        let result = unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes.max(1) as usize) };
        if result == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return Err(out_of_memory(what, bytes, free));
        }
        succeed(result, &format!("allocate {what}"))?;
        Ok(Self { context: Arc::clone(context), address, bytes })
    }

    /// Address of byte `offset`.
    pub(super) fn at(&self, offset: u64) -> u64 {
        assert!(offset <= self.bytes, "byte `{offset}` lies outside an allocation of `{}`", self.bytes);
        self.address + offset
    }

    /// Queues a copy of `values` to byte `offset`. The host's bytes must not change until the stream has come so far.
    pub(super) fn write(&self, stream: &Stream, offset: u64, values: &[u8]) -> Result<(), DeviceError> {
        assert!(offset + values.len() as u64 <= self.bytes, "the copy fits");
        let (to, from) = (self.at(offset), values.as_ptr().cast::<c_void>());
        succeed(unsafe { sys::cuMemcpyHtoDAsync_v2(to, from, values.len(), stream.raw) }, "copy to the GPU")
    }

    /// Queues a copy from byte `offset` into `values`, which hold it once the stream has come so far.
    pub(super) fn read(&self, stream: &Stream, offset: u64, values: &mut [u8]) -> Result<(), DeviceError> {
        assert!(offset + values.len() as u64 <= self.bytes, "the copy fits");
        let to = values.as_mut_ptr().cast::<c_void>();
        succeed(unsafe { sys::cuMemcpyDtoHAsync_v2(to, self.at(offset), values.len(), stream.raw) }, "copy from the GPU")
    }

    /// Its length, bytes.
    pub(super) fn len(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = self.context.enter();
        let _ = unsafe { sys::cuMemFree_v2(self.address) };
    }
}

fn out_of_memory(what: &str, needed: u64, free: u64) -> DeviceError {
    let remedy = "Choose a smaller model, fewer KV blocks or a smaller batch, or end other processes on the GPU".to_owned();
    DeviceError::OutOfMemory { what: what.to_owned(), needed, free, remedy }
}

/// Host memory that the device copies from and to by itself.
#[derive(Debug)]
pub(super) struct Pinned {
    context: Arc<Context>,
    address: *mut u8,
    bytes: usize,
}

// SAFETY: it is plain host memory with one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    /// `bytes` of it, zeroed.
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        context.enter()?;
        let mut address: *mut c_void = std::ptr::null_mut();
        // No flags: write-combined memory would be slow to read back.
        succeed(unsafe { sys::cuMemHostAlloc(&raw mut address, bytes.max(1), 0) }, &format!("pin {bytes} bytes of the host's memory"))?;
        let address = address.cast::<u8>();
        // SAFETY: the allocation is that long and nobody else's.
        unsafe { std::ptr::write_bytes(address, 0, bytes.max(1)) };
        Ok(Self { context: Arc::clone(context), address, bytes })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the allocation is that long, initialised, and lives as long as this owner.
        unsafe { std::slice::from_raw_parts(self.address, self.bytes) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = self.context.enter();
        let _ = unsafe { sys::cuMemFreeHost(self.address.cast::<c_void>()) };
    }
}
