//! From a program's source to machine code for one architecture, by NVRTC.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one reason holds for every call of the file, and is stated above the first")]

use std::ffi::{CStr, CString, c_char, c_int};

use cudarc::nvrtc::sys::{self, nvrtcProgram, nvrtcResult};

use crate::device::cuda::program::{HEADERS, Program};
use crate::device::error::DeviceError;

// SAFETY of every call below: `nvidia::probe` found NVRTC with every symbol; texts end with a zero and live through the
// calls; buffers have the sizes that NVRTC asked for.

/// Architectures that this NVRTC knows, ascending, such as 90.
pub(super) fn architectures() -> Vec<u32> {
    let mut count: c_int = 0;
    unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) };
    let mut known = vec![0; usize::try_from(count).unwrap_or_default()];
    unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) };
    known.sort_unstable();
    known.into_iter().map(c_int::unsigned_abs).collect()
}

/// Compiles `program` with `options`: a cubin for a real architecture (`sm_90`), PTX for a virtual one (`compute_90`).
pub(super) fn compile(program: &Program, options: &[String]) -> Result<Vec<u8>, DeviceError> {
    let text = |text: &str| CString::new(text).map_err(|_| refused(program, options, "a text holds a zero byte"));
    let (source, name) = (text(program.source)?, text(&format!("{}.cu", program.name))?);
    let headers = HEADERS.iter().map(|(_, source)| text(source)).collect::<Result<Vec<_>, _>>()?;
    let names = HEADERS.iter().map(|(name, _)| text(name)).collect::<Result<Vec<_>, _>>()?;
    let given = options.iter().map(|option| text(option)).collect::<Result<Vec<_>, _>>()?;
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<*const c_char>>();
    let (headers, names, given) = (pointers(&headers), pointers(&names), pointers(&given));
    let mut raw: nvrtcProgram = std::ptr::null_mut();
    let count = c_int::try_from(headers.len()).unwrap_or_default();
    let made = unsafe { sys::nvrtcCreateProgram(&raw mut raw, source.as_ptr(), name.as_ptr(), count, headers.as_ptr(), names.as_ptr()) };
    succeed(program, options, made, "")?;
    let compiling = Compiling { raw };
    let compiled = unsafe { sys::nvrtcCompileProgram(raw, c_int::try_from(given.len()).unwrap_or_default(), given.as_ptr()) };
    succeed(program, options, compiled, &compiling.log())?;
    compiling.image(program, options)
}

/// A program that NVRTC holds.
struct Compiling {
    raw: nvrtcProgram,
}

impl Compiling {
    fn log(&self) -> String {
        let mut size = 0;
        unsafe { sys::nvrtcGetProgramLogSize(self.raw, &raw mut size) };
        let mut log = vec![0_u8; size.max(1)];
        unsafe { sys::nvrtcGetProgramLog(self.raw, log.as_mut_ptr().cast()) };
        CStr::from_bytes_until_nul(&log).map_or_else(|_| String::new(), |log| log.to_string_lossy().trim().to_owned())
    }

    /// The cubin where there is one, else the PTX.
    fn image(&self, program: &Program, options: &[String]) -> Result<Vec<u8>, DeviceError> {
        let mut size = 0;
        let asked = unsafe { sys::nvrtcGetCUBINSize(self.raw, &raw mut size) };
        if asked == nvrtcResult::NVRTC_SUCCESS && size > 0 {
            let mut image = vec![0_u8; size];
            succeed(program, options, unsafe { sys::nvrtcGetCUBIN(self.raw, image.as_mut_ptr().cast()) }, "")?;
            return Ok(image);
        }
        succeed(program, options, unsafe { sys::nvrtcGetPTXSize(self.raw, &raw mut size) }, "")?;
        let mut image = vec![0_u8; size];
        succeed(program, options, unsafe { sys::nvrtcGetPTX(self.raw, image.as_mut_ptr().cast()) }, "")?;
        Ok(image)
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        unsafe { sys::nvrtcDestroyProgram(&raw mut self.raw) };
    }
}

fn succeed(program: &Program, options: &[String], result: nvrtcResult, log: &str) -> Result<(), DeviceError> {
    if result == nvrtcResult::NVRTC_SUCCESS {
        return Ok(());
    }
    // SAFETY: NVRTC hands out a static text for every result.
    let meaning = unsafe { CStr::from_ptr(sys::nvrtcGetErrorString(result)) }.to_string_lossy().into_owned();
    Err(refused(program, options, &if log.is_empty() { meaning } else { format!("{meaning}: {log}") }))
}

fn refused(program: &Program, options: &[String], said: &str) -> DeviceError {
    DeviceError::Cuda {
        attempted: format!("compile `{}.cu` with `{}`", program.name, options.join(" ")),
        said: said.to_owned(),
        remedy: "Try another NVRTC (`pip install nvidia-cuda-nvrtc-cu12==12.9.86` and `--cuda-libraries`), and please report it".to_owned(),
    }
}
