//! Starts the driver and lists the GPUs that this process may use.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one reason holds for every call of the file, and is stated above the first")]

use std::ffi::{CStr, c_char, c_int};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};

use crate::nvidia::library::Library;
use crate::nvidia::{Absence, Driver, Probe};

/// A GPU as the driver describes it. Its ordinal is this process's own: join with other tools by `uuid` or `bus_id`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Gpu {
    /// Number among those that this process may use, from 0.
    pub ordinal: u32,
    /// Marketing name.
    pub name: String,
    /// `GPU-...`, or of an instance of a partitioned GPU `MIG-...` where the driver says so.
    pub uuid: String,
    /// PCI address, `domain:bus:device.function`, lower case.
    pub bus_id: String,
    /// Compute capability, such as (9, 0).
    pub compute_capability: (u32, u32),
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Level-2 cache, bytes.
    pub l2_bytes: u64,
    /// Shared memory that one block may ask for, bytes.
    pub shared_bytes_per_block: u32,
}

impl Gpu {
    /// Architecture that kernels are compiled for: `sm_90a` where the instructions of that very architecture are wanted.
    #[must_use]
    pub fn architecture(&self) -> String {
        let (major, minor) = self.compute_capability;
        let own = if major >= 9 { "a" } else { "" };
        format!("sm_{major}{minor}{own}")
    }
}

/// Initialises the driver and asks every GPU who it is.
pub(super) fn enumerate(library: Library) -> Probe<Driver> {
    // SAFETY (all calls of this file): the symbols were checked when the library was opened; pointers are to values
    // that live through the call, and lengths are theirs.
    succeed(unsafe { sys::cuInit(0) }, "initialise the driver")?;
    let (mut version, mut count) = (0, 0);
    succeed(unsafe { sys::cuDriverGetVersion(&raw mut version) }, "ask the driver's version")?;
    succeed(unsafe { sys::cuDeviceGetCount(&raw mut count) }, "count the GPUs")?;
    if count == 0 {
        return Err(absence(
            "the driver lists no GPU that this process may use".to_owned(),
            "Check `CUDA_VISIBLE_DEVICES`, and that the container or job was given a GPU",
        ));
    }
    let gpus = (0..count).map(describe).collect::<Probe<Vec<_>>>()?;
    let cuda_version = format!("{}.{}", version / 1000, version % 1000 / 10);
    Ok(Driver { library: Library { version: cuda_version.clone(), ..library }, cuda_version, gpus })
}

fn describe(ordinal: c_int) -> Probe<Gpu> {
    let (mut device, mut memory_bytes) = (0, 0_usize);
    succeed(unsafe { sys::cuDeviceGet(&raw mut device, ordinal) }, "open a GPU")?;
    succeed(unsafe { sys::cuDeviceTotalMem_v2(&raw mut memory_bytes, device) }, "ask a GPU for its memory")?;
    let attribute = |attribute: Attribute| {
        let mut value = 0;
        succeed(unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) }, "ask a GPU for an attribute")?;
        Ok(value.unsigned_abs())
    };
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    succeed(unsafe { sys::cuDeviceGetUuid_v2(&raw mut uuid, device) }, "ask a GPU for its UUID")?;
    let name = text(|buffer, len| unsafe { sys::cuDeviceGetName(buffer, len, device) })?;
    let bus_id = text(|buffer, len| unsafe { sys::cuDeviceGetPCIBusId(buffer, len, device) })?.to_lowercase();
    Ok(Gpu {
        ordinal: ordinal.unsigned_abs(),
        name,
        uuid: uuid_text(uuid.bytes.map(|byte| byte as u8)),
        bus_id,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        memory_bytes: memory_bytes as u64,
        l2_bytes: u64::from(attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?),
        shared_bytes_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
    })
}

/// A text that the driver writes into a buffer.
fn text(fill: impl FnOnce(*mut c_char, c_int) -> CUresult) -> Probe<String> {
    let mut buffer: [c_char; 256] = [0; 256];
    succeed(fill(buffer.as_mut_ptr(), 255), "ask a GPU for a name")?;
    // SAFETY: the last byte of the buffer is never written, so that the text ends inside.
    Ok(unsafe { CStr::from_ptr(buffer.as_ptr()) }.to_string_lossy().into_owned())
}

/// As NVML and `nvidia-smi` write it.
fn uuid_text(bytes: [u8; 16]) -> String {
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn succeed(result: CUresult, attempted: &str) -> Probe<()> {
    if result == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let remedy = match result {
        CUresult::CUDA_ERROR_NO_DEVICE => "Check `CUDA_VISIBLE_DEVICES`, and that the container or job was given a GPU",
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH => {
            "The driver's library and kernel module differ: reload the module (`rmmod nvidia; modprobe nvidia`) or reboot"
        }
        CUresult::CUDA_ERROR_SYSTEM_NOT_READY => "Start the fabric manager (`systemctl start nvidia-fabricmanager`)",
        CUresult::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "A forward-compatibility libcuda stands in the loader's path: remove its folder from LD_LIBRARY_PATH"
        }
        _ => "See what `nvidia-smi` and the kernel's log (`dmesg | grep -i nvrm`) say",
    };
    Err(absence(format!("it failed to {attempted}: {}", error_text(result)), remedy))
}

fn absence(reason: String, remedy: &str) -> Absence {
    Absence { what: "the CUDA driver".to_owned(), reason, looked_for: Vec::new(), remedy: remedy.to_owned() }
}

/// An error's name and meaning, as the driver gives them.
#[must_use]
pub fn error_text(result: CUresult) -> String {
    let text = |ask: unsafe fn(CUresult, *mut *const c_char) -> CUresult| {
        let mut text = std::ptr::null();
        // SAFETY: the driver hands out a pointer to a static text, or leaves null.
        let known = unsafe { ask(result, &raw mut text) } == CUresult::CUDA_SUCCESS && !text.is_null();
        // SAFETY: as above.
        known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    match (text(sys::cuGetErrorName), text(sys::cuGetErrorString)) {
        (Some(name), Some(meaning)) => format!("{name} ({meaning})"),
        _ => format!("{result:?}"),
    }
}
