//! Whether GPU counters can be read here: finds NVIDIA's management library, opens it, and says what was looked for.

use std::path::{Path, PathBuf};

use crate::record::node::GpuTelemetry;
use crate::telemetry::nvml::{self, Library, OpenError};

/// NVIDIA's management library.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// Where distributions, containers and WSL keep it.
const FOLDERS: &[&str] = &[
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/nvidia/lib64",
    "usr/lib/wsl/lib",
    "run/opengl-driver/lib",
];

/// There are no GPU counters here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTelemetry {
    /// There is no library.
    #[error("`{LIBRARY}` not found in {looked_in}")]
    NotFound {
        /// All folders, separated by commas.
        looked_in: String,
    },
    /// The file that was named is not there.
    #[error("there is no file `{}`, which was named as the NVML library (`--nvml`, PLIMSOLL_NVML)", path.display())]
    NotThere {
        /// As it was named.
        path: PathBuf,
    },
    /// There is one, but it is of no use.
    #[error(transparent)]
    Refused(#[from] OpenError),
}

/// Finds and opens the library: the one that is named, or the first of the usual places under `root`.
///
/// # Errors
/// What was looked for and not found, or why the library is of no use.
pub fn open_under(root: &Path, named: Option<&Path>) -> Result<Library, NoTelemetry> {
    let found = match named {
        Some(path) if path.exists() => path.to_owned(),
        Some(path) => return Err(NoTelemetry::NotThere { path: path.to_owned() }),
        None => FOLDERS.iter().map(|folder| root.join(folder).join(LIBRARY)).find(|path| path.exists()).ok_or_else(|| {
            let looked_in = FOLDERS.iter().map(|folder| format!("/{folder}")).collect::<Vec<_>>().join(", ");
            NoTelemetry::NotFound { looked_in }
        })?,
    };
    Ok(nvml::open(&found)?)
}

/// The same as the node's record keeps it.
#[must_use]
pub fn record(opened: &Result<Library, NoTelemetry>) -> GpuTelemetry {
    match opened {
        Ok(library) => GpuTelemetry::Available(library.inventory().clone()),
        Err(none) => GpuTelemetry::Unavailable { why: none.to_string() },
    }
}
