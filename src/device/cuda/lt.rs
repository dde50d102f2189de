//! Matrix products by cuBLASLt, each shape planned once: layouts, description and algorithm are kept, so that a product
//! in the steady state is one call.
//!
//! `out [rows, n] = x [rows, k] weight [n, k]^T` in row-major order is, in the library's column-major order,
//! `out [n, rows] = weight^T [n, k] x [k, rows]`: a transposed times a plain operand, nothing is copied.

#![expect(clippy::undocumented_unsafe_blocks, reason = "one reason holds for every call of the file, and is stated above the first")]

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::cublaslt::sys::{
    self, cublasComputeType_t as ComputeType, cublasLtEpilogue_t as Epilogue, cublasLtHandle_t, cublasLtMatmulAlgo_t as Algorithm,
    cublasLtMatmulDesc_t, cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulHeuristicResult_t as Heuristic,
    cublasLtMatmulPreference_t, cublasLtMatmulPreferenceAttributes_t as PreferenceAttribute, cublasLtMatrixLayout_t,
    cublasStatus_t as Status, cudaDataType as DataType,
};

use crate::device::cuda::driver::{Context, FREE_MEMORY, Stream};
use crate::device::cuda::memory::Buffer;
use crate::device::error::DeviceError;
use crate::device::source::Element;

/// Memory that algorithms may use, bytes: what the library's authors recommend for Hopper.
pub(super) const WORKSPACE_BYTES: u64 = 32 << 20;
/// `CUBLAS_OP_T`, which the bindings of this library leave out.
const TRANSPOSED: i32 = 1;
/// Algorithms that are asked for.
const CANDIDATES: usize = 8;

// SAFETY of every call below: `nvidia::probe` found cuBLASLt with every symbol; handles come from the calls that make them
// and die with their owners; attribute pointers are to values of the sizes given with them.

/// A place for an algorithm.
const NOTHING_FOUND: Heuristic = Heuristic {
    algo: Algorithm { data: [0; 8] },
    workspaceSize: 0,
    state: Status::CUBLAS_STATUS_NOT_SUPPORTED,
    wavesCount: 0.0,
    reserved: [0; 4],
};

/// Turns the library's answer into an error that says what was attempted.
fn succeed(status: Status, attempted: &str) -> Result<(), DeviceError> {
    if status == Status::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    let (attempted, said) = (attempted.to_owned(), format!("cuBLASLt: {status:?}"));
    if status == Status::CUBLAS_STATUS_ALLOC_FAILED {
        return Err(DeviceError::Exhausted { attempted, said, remedy: FREE_MEMORY.to_owned() });
    }
    Err(DeviceError::Cuda { attempted, said, remedy: "Update cuBLASLt, or do without it: `--matmul own`".to_owned() })
}

/// What is multiplied, and what comes out. Sums are f32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    /// f32 throughout.
    F32,
    /// f32 in memory, of which the matrix units take the upper 19 bits.
    Tf32,
    /// bf16 throughout.
    Bf16,
    /// e4m3 operands without scales, bf16 results, and sums as fast as the matrix units add: what serving in fp8 uses.
    Fp8,
}

impl From<Element> for Numbers {
    fn from(element: Element) -> Self {
        if element == Element::F32 { Self::F32 } else { Self::Bf16 }
    }
}

impl Numbers {
    /// Name in tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Fp8 => "fp8",
        }
    }

    /// Bytes of an operand's element.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::Tf32 => 4,
            Self::Bf16 => 2,
            Self::Fp8 => 1,
        }
    }

    /// Bytes of a result's element.
    pub(super) const fn result_bytes(self) -> usize {
        if matches!(self, Self::Fp8) { 2 } else { self.bytes() }
    }

    const fn operand(self) -> DataType {
        match self {
            Self::F32 | Self::Tf32 => DataType::CUDA_R_32F,
            Self::Bf16 => DataType::CUDA_R_16BF,
            Self::Fp8 => DataType::CUDA_R_8F_E4M3,
        }
    }

    const fn result(self) -> DataType {
        if matches!(self, Self::Fp8) { DataType::CUDA_R_16BF } else { self.operand() }
    }

    const fn compute(self) -> ComputeType {
        if matches!(self, Self::Tf32) { ComputeType::CUBLAS_COMPUTE_32F_FAST_TF32 } else { ComputeType::CUBLAS_COMPUTE_32F }
    }
}

/// Operands of a product, by address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands {
    pub(super) out: u64,
    pub(super) x: u64,
    pub(super) weight: u64,
    /// In the element type of the results; 0 where there is none.
    pub(super) bias: u64,
}

/// Shape of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Whether `out` is f32 whatever the operands are.
    pub(super) logits: bool,
    pub(super) bias: bool,
}

/// The library with its working memory, on one stream.
#[derive(Debug)]
pub(super) struct Lt {
    handle: cublasLtHandle_t,
    workspace: Buffer,
    numbers: Numbers,
}

// SAFETY: a handle may be used from any thread, one at a time.
unsafe impl Send for Lt {}

impl Lt {
    pub(super) fn new(context: &Arc<Context>, numbers: Numbers) -> Result<Self, DeviceError> {
        let workspace = Buffer::new(context, "the working memory of cuBLASLt", WORKSPACE_BYTES)?;
        let mut handle = std::ptr::null_mut();
        succeed(unsafe { sys::cublasLtCreate(&raw mut handle) }, "start cuBLASLt")?;
        Ok(Self { handle, workspace, numbers })
    }

    /// Algorithms for `shape`, the library's favourite first; none where it has none.
    pub(super) fn plans(&self, shape: Shape) -> Result<Vec<LtPlan>, DeviceError> {
        let preference = Preference::new()?;
        let problem = Problem::new(self.numbers, shape)?;
        let mut found = [NOTHING_FOUND; CANDIDATES];
        let mut count = 0;
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                problem.description,
                problem.weight,
                problem.x,
                problem.out,
                problem.out,
                preference.0,
                CANDIDATES as i32,
                found.as_mut_ptr(),
                &raw mut count,
            )
        };
        if status == Status::CUBLAS_STATUS_NOT_SUPPORTED {
            return Ok(Vec::new());
        }
        succeed(status, "ask cuBLASLt for algorithms")?;
        let problem = Arc::new(problem);
        let usable =
            found.iter().take(usize::try_from(count).unwrap_or_default()).filter(|found| found.state == Status::CUBLAS_STATUS_SUCCESS);
        Ok(usable.map(|found| LtPlan { problem: Arc::clone(&problem), found: *found }).collect())
    }

    /// Queues a planned product.
    pub(super) fn run(&self, stream: &Stream, plan: &LtPlan, operands: &Operands) -> Result<(), DeviceError> {
        let (one, zero) = (1.0_f32, 0.0_f32);
        let problem = &plan.problem;
        if operands.bias != 0 {
            problem.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &operands.bias)?;
        }
        let status = unsafe {
            sys::cublasLtMatmul(
                self.handle,
                problem.description,
                (&raw const one).cast(),
                operands.weight as *const c_void,
                problem.weight,
                operands.x as *const c_void,
                problem.x,
                (&raw const zero).cast(),
                operands.out as *const c_void,
                problem.out,
                operands.out as *mut c_void,
                problem.out,
                &raw const plan.found.algo,
                self.workspace.at(0) as *mut c_void,
                self.workspace.len() as usize,
                stream.raw.cast(),
            )
        };
        succeed(status, "multiply matrices with cuBLASLt")
    }
}

impl Drop for Lt {
    fn drop(&mut self) {
        let _ = unsafe { sys::cublasLtDestroy(self.handle) };
    }
}

/// How one shape is computed.
#[derive(Clone, Debug)]
pub(super) struct LtPlan {
    problem: Arc<Problem>,
    found: Heuristic,
}

/// Description and layouts of one shape.
#[derive(Debug)]
struct Problem {
    description: cublasLtMatmulDesc_t,
    weight: cublasLtMatrixLayout_t,
    x: cublasLtMatrixLayout_t,
    out: cublasLtMatrixLayout_t,
}

// SAFETY: descriptions are plain data of the library, used by one engine at a time.
unsafe impl Send for Problem {}
// SAFETY: as above.
unsafe impl Sync for Problem {}

impl Problem {
    fn new(numbers: Numbers, shape: Shape) -> Result<Self, DeviceError> {
        let operand = numbers.operand();
        let result = if shape.logits { DataType::CUDA_R_32F } else { numbers.result() };
        let Shape { rows, n, k, .. } = shape;
        let mut problem =
            Self { description: std::ptr::null_mut(), weight: std::ptr::null_mut(), x: std::ptr::null_mut(), out: std::ptr::null_mut() };
        let made = unsafe { sys::cublasLtMatmulDescCreate(&raw mut problem.description, numbers.compute(), DataType::CUDA_R_32F) };
        succeed(made, "describe a matrix product")?;
        problem.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, &TRANSPOSED)?;
        if numbers == Numbers::Fp8 {
            problem.set(Attribute::CUBLASLT_MATMUL_DESC_FAST_ACCUM, &1_i8)?;
        }
        if shape.bias {
            problem.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &Epilogue::CUBLASLT_EPILOGUE_BIAS)?;
            problem.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &numbers.result())?;
        }
        problem.weight = layout(operand, k, n)?;
        problem.x = layout(operand, k, rows)?;
        problem.out = layout(result, n, rows)?;
        Ok(problem)
    }

    fn set<T>(&self, attribute: Attribute, value: &T) -> Result<(), DeviceError> {
        let pointer = std::ptr::from_ref(value).cast::<c_void>();
        let status = unsafe { sys::cublasLtMatmulDescSetAttribute(self.description, attribute, pointer, size_of::<T>()) };
        succeed(status, "describe a matrix product")
    }
}

impl Drop for Problem {
    fn drop(&mut self) {
        for layout in [self.weight, self.x, self.out] {
            if !layout.is_null() {
                let _ = unsafe { sys::cublasLtMatrixLayoutDestroy(layout) };
            }
        }
        if !self.description.is_null() {
            let _ = unsafe { sys::cublasLtMatmulDescDestroy(self.description) };
        }
    }
}

fn layout(data_type: DataType, rows: usize, columns: usize) -> Result<cublasLtMatrixLayout_t, DeviceError> {
    let mut raw = std::ptr::null_mut();
    let made = unsafe { sys::cublasLtMatrixLayoutCreate(&raw mut raw, data_type, rows as u64, columns as u64, rows as i64) };
    succeed(made, "describe a matrix")?;
    Ok(raw)
}

/// What algorithms may use.
struct Preference(cublasLtMatmulPreference_t);

impl Preference {
    fn new() -> Result<Self, DeviceError> {
        let mut raw = std::ptr::null_mut();
        succeed(unsafe { sys::cublasLtMatmulPreferenceCreate(&raw mut raw) }, "state a preference of algorithms")?;
        let preference = Self(raw);
        let bytes = WORKSPACE_BYTES;
        let attribute = PreferenceAttribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
        let set = unsafe { sys::cublasLtMatmulPreferenceSetAttribute(raw, attribute, (&raw const bytes).cast(), size_of::<u64>()) };
        succeed(set, "state a preference of algorithms")?;
        Ok(preference)
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        let _ = unsafe { sys::cublasLtMatmulPreferenceDestroy(self.0) };
    }
}
