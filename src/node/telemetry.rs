//! Whether GPU counters can be read here, and what was looked for. Nothing is opened.

use std::path::Path;

use crate::record::node::Telemetry;

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

/// Looks for the library under a root.
#[must_use]
pub fn look_under(root: &Path) -> Telemetry {
    let found = FOLDERS.iter().find(|folder| root.join(folder).join(LIBRARY).exists());
    let why = match found {
        Some(folder) => format!("`/{folder}/{LIBRARY}` is there, but this version of plimsoll reads no GPU counters"),
        None => {
            let folders = FOLDERS.iter().map(|folder| format!("/{folder}")).collect::<Vec<_>>().join(", ");
            format!("`{LIBRARY}` not found in {folders}")
        }
    };
    Telemetry::Unavailable { why }
}
