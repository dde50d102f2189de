//! Where NVIDIA's management library is, for verbs that read GPU counters.

use std::path::{Path, PathBuf};

use crate::node::telemetry::{self, NoTelemetry};
use crate::telemetry::nvml::Library;

/// Arguments of verbs that read GPU counters.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "GPU telemetry")]
pub struct NvmlArgs {
    /// NVIDIA's management library [default: libnvidia-ml.so.1 in the usual folders]
    #[arg(long, value_name = "FILE", env = "PLIMSOLL_NVML", hide_env_values = true)]
    pub nvml: Option<PathBuf>,
}

impl NvmlArgs {
    /// Finds and opens it.
    ///
    /// # Errors
    /// Why there are no GPU counters here.
    pub fn open(&self) -> Result<Library, NoTelemetry> {
        telemetry::open_under(Path::new("/"), self.nvml.as_deref())
    }
}
