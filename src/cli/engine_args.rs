//! The built-in engine as `bench` and `generate` are told of it: arithmetic, weights and shape.

use anyhow::Context;
use clap::ValueEnum;

use crate::cli::exit::{Exit, ExitWith};
use crate::engine::kv_blocks::PrefixReuse;
use crate::engine::loading::{ModelSource, ShapeWish};
use crate::engine::weights::WeightSource;
use crate::model::tensors::Dtype;

/// How the engine computes, and in which shape; answers depend on arithmetic and weights only.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// How matrix products are computed [default: bf16 on a GPU, f32 on a CPU]
    #[arg(long, value_enum, value_name = "ARITHMETIC")]
    pub(super) arithmetic: Option<ArithmeticArg>,
    /// What a preset's random weights are stored as [default: as the model is published]
    #[arg(long, value_enum, value_name = "DTYPE")]
    weights_dtype: Option<DtypeArg>,
    /// Sequences that run at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_num_seqs: u32,
    /// Tokens a step computes at most, which is how long prompts are cut into chunks [default: 2048 on a GPU, 512 on a CPU]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    max_num_batched_tokens: Option<u32>,
    /// Tokens a KV block holds
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    block_size: u32,
    /// Compute equal prefixes again each time
    #[arg(long)]
    no_prefix_cache: bool,
}

/// Arithmetic of matrix products, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ArithmeticArg {
    /// Products and sums in f32, whatever the weights.
    F32,
    /// Activations in bf16, sums in f32; on a CPU it needs bf16 weights and a processor that has it.
    Bf16,
}

/// Element types by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DtypeArg {
    /// 4 bytes.
    F32,
    /// 2 bytes, IEEE half precision.
    F16,
    /// 2 bytes, the upper half of an f32.
    Bf16,
}

impl EngineArgs {
    /// The shape, KV blocks by the memory there is.
    pub(super) fn wish(&self, on_cpu: bool) -> ShapeWish {
        // A GPU is busy with a chunk that would make everybody else on a CPU wait.
        let chunk = self.max_num_batched_tokens.unwrap_or(if on_cpu { 512 } else { 2048 });
        ShapeWish {
            block_size: self.block_size as usize,
            max_num_seqs: self.max_num_seqs as usize,
            max_num_batched_tokens: chunk as usize,
            prefix_reuse: if self.no_prefix_cache { PrefixReuse::Off } else { PrefixReuse::On },
            ..ShapeWish::default()
        }
    }

    /// Opens `model`; random weights are made from `seed`.
    ///
    /// # Errors
    /// When there is no such model, its files are not in order, or an element type was chosen for weights that have one.
    pub(super) fn open(self, model: &str, seed: u64) -> anyhow::Result<ModelSource> {
        let mut source = ModelSource::open(model, seed).context("cannot open the model").exit_with(Exit::BadInput)?;
        let Some(chosen) = self.weights_dtype else { return Ok(source) };
        if matches!(source.weights, WeightSource::Checkpoint(_)) {
            let fixed = format!(
                "`--weights-dtype` is for random weights, and those of `{model}` are stored already. Leave it out, or convert the checkpoint"
            );
            return Err(anyhow::anyhow!(fixed)).exit_with(Exit::Usage);
        }
        source.config.dtype = match chosen {
            DtypeArg::F32 => Dtype::F32,
            DtypeArg::F16 => Dtype::F16,
            DtypeArg::Bf16 => Dtype::Bf16,
        };
        Ok(source)
    }
}
