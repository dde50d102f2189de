//! Every kernel that a step uses, found once. Launch shapes are the kernels' contracts (their head comments).

use crate::device::cuda::driver::Function;
use crate::device::cuda::program::Modules;
use crate::device::error::DeviceError;

/// Head widths that attention is compiled for.
pub(super) const HEAD_DIMS: [usize; 5] = [32, 64, 96, 128, 256];
/// Rows that the skinny products are compiled for: each serves up to so many.
pub(super) const SKINNY_ROWS: [usize; 5] = [1, 2, 4, 8, 16];

/// Attention of one head width.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionKernels {
    pub(super) head_dim: usize,
    pub(super) decode: Function,
    pub(super) prefill: Function,
}

/// Kernels of one matrix product, by what they write: activations, or logits in f32.
#[derive(Clone, Copy, Debug)]
pub(super) struct MatmulKernels {
    pub(super) skinny: [Function; 5],
    pub(super) tile: Function,
}

/// All of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels {
    pub(super) embed: Function,
    pub(super) rms_norm: Function,
    pub(super) add_rms_norm: Function,
    pub(super) head_norm: Function,
    pub(super) rope_kv_write: Function,
    pub(super) attention: [AttentionKernels; 5],
    pub(super) attention_merge: Function,
    pub(super) silu_mul: Function,
    pub(super) gather_rows: Function,
    pub(super) sample: Function,
    pub(super) matmul: MatmulKernels,
    pub(super) matmul_logits: MatmulKernels,
    pub(super) random_weights: Function,
    pub(super) convert_f32: Function,
    pub(super) convert_f16: Function,
    pub(super) convert_bf16: Function,
}

impl Kernels {
    pub(super) fn find(modules: &Modules) -> Result<Self, DeviceError> {
        let of = |program: &str, name: &str| modules.function(program, name);
        let attention = |head_dim: usize| {
            let decode = of("attention_decode", &format!("attention_decode_h{head_dim}"))?;
            let prefill = of("attention_prefill", &format!("attention_prefill_h{head_dim}"))?;
            Ok::<_, DeviceError>(AttentionKernels { head_dim, decode, prefill })
        };
        let [a, b, c, d, e] = HEAD_DIMS;
        let matmul = |suffix: &str| {
            let skinny = |rows: usize| of("matmul", &format!("skinny_{rows}{suffix}"));
            let [a, b, c, d, e] = SKINNY_ROWS;
            let skinny = [skinny(a)?, skinny(b)?, skinny(c)?, skinny(d)?, skinny(e)?];
            Ok::<_, DeviceError>(MatmulKernels { skinny, tile: of("matmul", &format!("tile{suffix}"))? })
        };
        Ok(Self {
            embed: of("embed", "embed")?,
            rms_norm: of("norm", "rms_norm")?,
            add_rms_norm: of("norm", "add_rms_norm")?,
            head_norm: of("norm", "head_norm")?,
            rope_kv_write: of("rope_kv", "rope_kv_write")?,
            attention: [attention(a)?, attention(b)?, attention(c)?, attention(d)?, attention(e)?],
            attention_merge: of("attention_decode", "attention_merge")?,
            silu_mul: of("activation", "silu_mul")?,
            gather_rows: of("gather", "gather_rows")?,
            sample: of("sample", "sample")?,
            matmul: matmul("")?,
            matmul_logits: matmul("_logits")?,
            random_weights: of("weights", "random_weights")?,
            convert_f32: of("weights", "convert_f32")?,
            convert_f16: of("weights", "convert_f16")?,
            convert_bf16: of("weights", "convert_bf16")?,
        })
    }

    /// Kernels that spill registers to memory, which none should: named, with the bytes a thread spills.
    pub(super) fn spills(modules: &Modules) -> Result<Vec<(String, u32)>, DeviceError> {
        let mut spilled = Vec::new();
        for (name, function) in modules.found() {
            let bytes = function.local_bytes()?;
            if bytes > 0 {
                spilled.push((name, bytes));
            }
        }
        Ok(spilled)
    }

    /// Attention of this head width; `None` where there is none.
    pub(super) fn attention(&self, head_dim: usize) -> Option<&AttentionKernels> {
        self.attention.iter().find(|kernels| kernels.head_dim == head_dim)
    }
}
