//! Whether GPU counters can be read here: finds NVIDIA's management library, opens it, and says what was looked for.

use std::path::{Path, PathBuf};

use crate::nvidia::Absence;
use crate::nvidia::library;
use crate::nvidia::search::Search;
use crate::record::node::GpuTelemetry;
use crate::telemetry::nvml::{self, Library, OpenError};

/// There are no GPU counters here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTelemetry {
    /// There is no library, or it lacks what makes it one.
    #[error(transparent)]
    NotFound(#[from] Absence),
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
        None => library::nvml(&Search { root: root.to_owned(), by_loader: root == Path::new("/"), ..Search::default() })?.path,
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
