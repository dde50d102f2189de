//! The model of `bench` and `generate`: a checkpoint with the weights it has, or a preset with random ones.

use anyhow::Context;
use clap::ValueEnum;

use crate::cli::exit::{Exit, ExitWith};
use crate::engine::loading::ModelSource;
use crate::engine::weights::WeightSource;
use crate::model::tensors::Dtype;

/// What a preset's random weights are stored as.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct WeightsArgs {
    /// What a preset's random weights are stored as [default: as the model is published]
    #[arg(long, value_enum, value_name = "DTYPE")]
    weights_dtype: Option<DtypeArg>,
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

impl WeightsArgs {
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
