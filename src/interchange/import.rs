//! From a foreign file to points, by the format that its content shows.

use serde_json::Value;

use crate::interchange::error::ImportError;
use crate::interchange::foreign::{Node, documents};
use crate::interchange::{aiperf, guidellm, inferencex, vllm};
use crate::record::imported::{Imported, each_once};

/// A form that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `vllm bench serve`, Python or Rust; one object, or one a line.
    Vllm,
    /// AIPerf's summary, or its records.
    Aiperf,
    /// GuideLLM.
    Guidellm,
    /// InferenceX.
    Inferencex,
}

impl Format {
    /// By what only this format has.
    fn of(document: &Value) -> Option<Self> {
        let has = |pointer: &str| document.pointer(pointer).is_some();
        if has("/metadata/guidellm_version") || (has("/benchmarks") && has("/metadata/version")) {
            Some(Self::Guidellm)
        } else if has("/aiperf_version") || has("/metadata/request_start_ns") || has("/request_latency/unit") {
            Some(Self::Aiperf)
        } else if has("/tput_per_gpu") {
            Some(Self::Inferencex)
        } else if has("/request_throughput") && has("/completed") {
            Some(Self::Vllm)
        } else {
            None
        }
    }
}

/// Reads a file of which `bytes` is the content and `file` the name, in a format or the one it shows.
///
/// # Errors
/// When it is in no such format, of an unknown version, damaged, or says what cannot be.
pub fn read(file: &str, bytes: &[u8], format: Option<Format>) -> Result<Imported, ImportError> {
    let documents = documents(file, bytes)?;
    let format = format.or_else(|| documents.first().and_then(Format::of)).ok_or_else(|| ImportError::Unknown { file: file.to_owned() })?;
    let name = match format {
        Format::Vllm => vllm::NAME,
        Format::Aiperf => aiperf::NAME,
        Format::Guidellm => guidellm::NAME,
        Format::Inferencex => inferencex::NAME,
    };
    let nodes = documents.iter().map(|document| Node::root(file, name, document)).collect::<Vec<_>>();
    let mut imported = match format {
        Format::Vllm => vllm::read(file, &nodes)?,
        Format::Aiperf => aiperf::read(file, &nodes)?,
        Format::Guidellm => guidellm::read(file, &nodes)?,
        Format::Inferencex => inferencex::read(file, &nodes)?,
    };
    if imported.points.is_empty() {
        return Err(ImportError::Empty { file: file.to_owned(), why: "no level was measured".to_owned() });
    }
    imported.lacks = each_once(imported.lacks);
    Ok(imported)
}
