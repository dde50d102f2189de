//! The CUDA driver's objects with owners: context, stream, event, module, graph. Nothing here knows what is computed.
//!
//! Every call goes through `succeed`, which names what was attempted. The symbols were checked by `nvidia::probe`;
//! nobody comes here without a [`Gpu`](crate::nvidia::gpus::Gpu) that it found.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one reason holds for every call of the file, and is stated above the first")]

use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use crate::device::error::DeviceError;
use crate::nvidia::gpus::error_text;

/// What to do when memory of the GPU ran out.
pub(super) const FREE_MEMORY: &str = "Free memory of the GPU, or give the engine fewer KV blocks or a smaller batch";

/// Turns the driver's answer into an error that says what was attempted.
pub(super) fn succeed(result: CUresult, attempted: &str) -> Result<(), DeviceError> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let (attempted, said) = (attempted.to_owned(), error_text(result));
    let remedy = match result {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => return Err(DeviceError::Exhausted { attempted, said, remedy: FREE_MEMORY.to_owned() }),
        CUresult::CUDA_ERROR_ECC_UNCORRECTABLE | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR => {
            "The GPU's memory is defective: drain the node and have the GPU inspected (`nvidia-smi -q -d ECC`)"
        }
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => "Another process holds the GPU exclusively: end it, or choose another GPU",
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            "The driver is older than the compiler of the kernels: update the driver, or remove the newer NVRTC"
        }
        _ => "Look for XID messages in the kernel's log (`dmesg | grep -i xid`), and run `plimsoll doctor`",
    };
    Err(DeviceError::Cuda { attempted, said, remedy: remedy.to_owned() })
}

// SAFETY of every call below: the symbols exist (`nvidia::probe`); handles were made by the calls they are passed to and
// live as long as their owners; pointers are to values that live through the call.

/// The primary context of one GPU, shared by all engines on it.
#[derive(Debug)]
pub(super) struct Context {
    device: sys::CUdevice,
    raw: sys::CUcontext,
}

// SAFETY: a CUDA context may be used from any thread once it is current there.
unsafe impl Send for Context {}
// SAFETY: as above; the driver synchronises its own state.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn open(ordinal: u32) -> Result<Arc<Self>, DeviceError> {
        let (mut device, mut raw) = (0, std::ptr::null_mut());
        let ordinal = ordinal.cast_signed();
        succeed(unsafe { sys::cuDeviceGet(&raw mut device, ordinal) }, "open the GPU")?;
        succeed(unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut raw, device) }, "make a context on the GPU")?;
        let context = Self { device, raw };
        context.enter()?;
        Ok(Arc::new(context))
    }

    /// Makes it the calling thread's context: before any other call on a thread that may be new.
    pub(super) fn enter(&self) -> Result<(), DeviceError> {
        succeed(unsafe { sys::cuCtxSetCurrent(self.raw) }, "enter the GPU's context")
    }

    /// Free and total memory, bytes.
    pub(super) fn memory(&self) -> Result<(u64, u64), DeviceError> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        succeed(unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) }, "ask for the GPU's free memory")?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// An ordered queue of work.
#[derive(Debug)]
pub(super) struct Stream {
    context: Arc<Context>,
    pub(super) raw: sys::CUstream,
}

// SAFETY: as for the context.
unsafe impl Send for Stream {}
// SAFETY: as for the context.
unsafe impl Sync for Stream {}

impl Stream {
    pub(super) fn new(context: &Arc<Context>) -> Result<Self, DeviceError> {
        context.enter()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        succeed(unsafe { sys::cuStreamCreate(&raw mut raw, flags) }, "make a stream")?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        succeed(unsafe { sys::cuStreamSynchronize(self.raw) }, "finish the GPU's work")
    }

    /// Records what is queued from here on instead of running it.
    pub(super) fn begin_capture(&self) -> Result<(), DeviceError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        succeed(unsafe { sys::cuStreamBeginCapture_v2(self.raw, mode) }, "record a step")
    }

    /// Ends the recording and makes it ready to be played.
    pub(super) fn end_capture(&self) -> Result<Graph, DeviceError> {
        let (mut graph, mut raw) = (std::ptr::null_mut(), std::ptr::null_mut());
        succeed(unsafe { sys::cuStreamEndCapture(self.raw, &raw mut graph) }, "end the recording of a step")?;
        let made = succeed(unsafe { sys::cuGraphInstantiateWithFlags(&raw mut raw, graph, 0) }, "make a recorded step ready");
        let _ = unsafe { sys::cuGraphDestroy(graph) };
        made?;
        Ok(Graph { context: Arc::clone(&self.context), raw })
    }
}

impl Drop for Stream {
    /// What still runs uses memory whose owners go next.
    fn drop(&mut self) {
        let _ = self.context.enter();
        let _ = self.synchronize();
        let _ = unsafe { sys::cuStreamDestroy_v2(self.raw) };
    }
}

/// A recorded step.
#[derive(Debug)]
pub(super) struct Graph {
    context: Arc<Context>,
    raw: sys::CUgraphExec,
}

// SAFETY: as for the context; a graph is launched by one engine only.
unsafe impl Send for Graph {}

impl Graph {
    pub(super) fn launch(&self, stream: &Stream) -> Result<(), DeviceError> {
        succeed(unsafe { sys::cuGraphLaunch(self.raw, stream.raw) }, "play a recorded step")
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let _ = self.context.enter();
        let _ = unsafe { sys::cuGraphExecDestroy(self.raw) };
    }
}

/// A point in a stream, to wait for.
#[derive(Debug)]
pub(super) struct Event {
    context: Arc<Context>,
    raw: sys::CUevent,
}

// SAFETY: as for the context.
unsafe impl Send for Event {}

impl Event {
    /// One whose time is kept.
    pub(super) fn timed(context: &Arc<Context>) -> Result<Self, DeviceError> {
        Self::new(context, sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// One without a time, which costs the stream less.
    pub(super) fn untimed(context: &Arc<Context>) -> Result<Self, DeviceError> {
        Self::new(context, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn new(context: &Arc<Context>, flags: sys::CUevent_flags) -> Result<Self, DeviceError> {
        context.enter()?;
        let mut raw = std::ptr::null_mut();
        succeed(unsafe { sys::cuEventCreate(&raw mut raw, flags as u32) }, "make an event")?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    pub(super) fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        succeed(unsafe { sys::cuEventRecord(self.raw, stream.raw) }, "mark a point in the GPU's work")
    }

    /// Waits until the stream has come so far.
    pub(super) fn wait(&self) -> Result<(), DeviceError> {
        succeed(unsafe { sys::cuEventSynchronize(self.raw) }, "wait for the GPU")
    }

    /// Seconds from `earlier` to this event, both timed and recorded; waits for them.
    pub(super) fn seconds_since(&self, earlier: &Self) -> Result<f64, DeviceError> {
        self.wait()?;
        let mut milliseconds = 0.0;
        succeed(elapsed(&mut milliseconds, earlier.raw, self.raw), "read a time")?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

/// Drivers before CUDA 12.8 have only the older of the two calls, which takes the same arguments.
fn elapsed(milliseconds: &mut f32, from: sys::CUevent, to: sys::CUevent) -> CUresult {
    type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> CUresult;
    let library = unsafe { sys::culib() };
    let found = [b"cuEventElapsedTime_v2".as_slice(), b"cuEventElapsedTime"].into_iter().find_map(|name| {
        // SAFETY: both symbols have this signature.
        unsafe { library.get::<Elapsed>(name) }.ok().map(|symbol| *symbol)
    });
    found.map_or(CUresult::CUDA_ERROR_NOT_FOUND, |call| unsafe { call(milliseconds, from, to) })
}

impl Drop for Event {
    fn drop(&mut self) {
        let _ = self.context.enter();
        let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
    }
}

/// Loaded machine code.
#[derive(Debug)]
pub(super) struct Module {
    context: Arc<Context>,
    raw: sys::CUmodule,
}

// SAFETY: as for the context.
unsafe impl Send for Module {}
// SAFETY: as for the context.
unsafe impl Sync for Module {}

impl Module {
    /// Loads `image`: a cubin, or PTX, which the driver compiles.
    pub(super) fn load(context: &Arc<Context>, image: &[u8], program: &str) -> Result<Self, DeviceError> {
        context.enter()?;
        // PTX is a text, and its end must be marked; a cubin knows its own length.
        let mut ended = image.to_vec();
        ended.push(0);
        let mut raw = std::ptr::null_mut();
        let attempted = format!("load the kernels of `{program}`");
        succeed(unsafe { sys::cuModuleLoadData(&raw mut raw, ended.as_ptr().cast::<c_void>()) }, &attempted)?;
        Ok(Self { context: Arc::clone(context), raw })
    }

    pub(super) fn function(&self, name: &str) -> Result<Function, DeviceError> {
        let symbol = CString::new(name).unwrap_or_default();
        let mut raw = std::ptr::null_mut();
        succeed(unsafe { sys::cuModuleGetFunction(&raw mut raw, self.raw, symbol.as_ptr()) }, &format!("find the kernel `{name}`"))?;
        Ok(Function { raw })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = self.context.enter();
        let _ = unsafe { sys::cuModuleUnload(self.raw) };
    }
}

/// A kernel of a loaded module, valid as long as the module is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) raw: sys::CUfunction,
}

// SAFETY: as for the context.
unsafe impl Send for Function {}
// SAFETY: as for the context.
unsafe impl Sync for Function {}

impl Function {
    /// Bytes of local memory a thread uses: anything above 0 is registers spilled.
    pub(super) fn local_bytes(self) -> Result<u32, DeviceError> {
        self.attribute(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)
    }

    fn attribute(self, attribute: sys::CUfunction_attribute) -> Result<u32, DeviceError> {
        let mut value = 0;
        succeed(unsafe { sys::cuFuncGetAttribute(&raw mut value, attribute, self.raw) }, "ask a kernel for an attribute")?;
        Ok(value.unsigned_abs())
    }
}
