//! The CUDA device: the same operations on an NVIDIA GPU, by the kernels of `kernels/` and cuBLASLt.
//!
//! [`Gpu`] makes a GPU ready once; a [`CudaDevice`] is one engine's stream and buffers on it. Every operation queues a
//! kernel and returns; `end_step` waits for the ids of the earliest step, while the next one may be under way already
//! (`sampled`). Steps that decode only are recorded and replayed (`graphs`). Libraries are opened by `nvidia::probe` alone:
//! who has no driver never comes here.

mod attention;
pub mod ceilings;
mod compiler;
mod driver;
pub mod gpu;
mod graphs;
mod kernels;
mod launch;
mod lt;
pub mod matmul;
mod memory;
mod ops;
pub mod program;
pub mod ptx;
mod sampled;
mod step;
pub mod tensor;
pub mod weights;

use std::sync::Arc;

use crate::device::AttentionSpec;
use crate::device::cuda::attention::{Attention, Partials, Splits};
use crate::device::cuda::driver::Stream;
use crate::device::cuda::gpu::Gpu;
use crate::device::cuda::graphs::{Graphs, Mode};
use crate::device::cuda::matmul::{ChosenProduct, Products};
use crate::device::cuda::sampled::Sampled;
use crate::device::cuda::step::StepArrays;
use crate::device::cuda::tensor::CudaKvCache;
use crate::device::cuda::weights::Uploader;
use crate::device::error::DeviceError;
use crate::device::source::Element;
use crate::device::step::StepBatch;

/// Elements that a vector load takes: widths are multiples of it.
const VECTOR: usize = 8;

/// One engine on a GPU.
#[derive(Debug)]
pub struct CudaDevice {
    gpu: Arc<Gpu>,
    stream: Stream,
    products: Products,
    graphs: Graphs,
    mode: Mode,
    bucket: Option<usize>,
    step: Option<StepArrays>,
    /// Whether a step was begun and not launched.
    begun: bool,
    splits: Splits,
    partials: Option<Partials>,
    sampled: Option<Sampled>,
    /// Rows of logits that the step just begun sampled.
    sampled_rows: usize,
    highest_token: u32,
    uploader: Option<Uploader>,
}

impl CudaDevice {
    /// A stream and buffers on a GPU that is ready.
    ///
    /// # Errors
    /// When the driver fails or the GPU's memory is used up.
    pub fn open(gpu: &Arc<Gpu>) -> Result<Self, DeviceError> {
        let stream = Stream::new(&gpu.context)?;
        let (spec, kernels) = (&gpu.spec, [gpu.kernels.matmul, gpu.kernels.matmul_logits]);
        let products = Products::new(&gpu.context, spec.matmul, spec.element, kernels, gpu.library)?;
        Ok(Self {
            gpu: Arc::clone(gpu),
            stream,
            products,
            graphs: Graphs::new(false, 0),
            mode: Mode::Plain,
            bucket: None,
            step: None,
            begun: false,
            splits: Splits { multiprocessors: gpu.facts.multiprocessors as usize, kv_heads: 1 },
            partials: None,
            sampled: None,
            sampled_rows: 0,
            highest_token: 0,
            uploader: None,
        })
    }

    /// Which products were chosen so far, for the record of a run.
    #[must_use]
    pub fn chosen_products(&self) -> Vec<ChosenProduct> {
        self.products.chosen()
    }

    /// Steps that were played from a recording.
    #[must_use]
    pub const fn played_steps(&self) -> u64 {
        self.graphs.played
    }

    fn element(&self) -> Element {
        self.gpu.spec.element
    }

    /// The uploader, made when it is first needed, and the rest that an upload takes.
    fn uploading(&mut self) -> Result<(&mut Uploader, &Stream, &Gpu), DeviceError> {
        self.gpu.context.enter()?;
        let uploader = match self.uploader.take() {
            Some(uploader) => uploader,
            None => Uploader::new(&self.gpu.context, self.element())?,
        };
        Ok((self.uploader.insert(uploader), &self.stream, &self.gpu))
    }

    fn step(&self) -> &StepArrays {
        self.step.as_ref().expect("`prepare` was called")
    }

    fn attention<'a>(&'a self, cache: &'a CudaKvCache, spec: &'a AttentionSpec) -> Attention<'a> {
        Attention { stream: &self.stream, kernels: &self.gpu.kernels, step: self.step(), cache, spec }
    }
}

/// A step whose sequences all decode one token and want its logits, in order: what is recorded.
fn only_decodes(batch: &StepBatch) -> bool {
    batch.num_prefill_seqs == 0
        && batch.logit_rows.len() == batch.num_seqs()
        && batch.logit_rows.iter().enumerate().all(|(row, wanted)| wanted.row as usize == row)
}

fn step_error(reason: String) -> DeviceError {
    DeviceError::Step { reason }
}
