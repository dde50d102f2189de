//! What can be wrong with a foreign file, or with an export.

use crate::capacity::throughput::NoCapacity;

/// A foreign file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is not JSON, or ends too early.
    #[error("cannot read `{file}` as JSON: {cause}. The file is cut short or damaged: export it again")]
    Json {
        /// Which.
        file: String,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// It has nothing in it.
    #[error("`{file}` has no result in it: {why}. Export it again, from a run that went to its end")]
    Empty {
        /// Which.
        file: String,
        /// What is missing.
        why: String,
    },
    /// No format that is known looks like this.
    #[error("cannot tell the format of `{file}`. Say it with `--as`: vllm, aiperf, guidellm or inferencex")]
    Unknown {
        /// Which.
        file: String,
    },
    /// A version that is not known.
    #[error("`{file}` has {what} `{found}`, and this plimsoll reads {known}. Export it with such a version, or update plimsoll")]
    Version {
        /// Which.
        file: String,
        /// Of which field.
        what: &'static str,
        /// As the file says.
        found: String,
        /// What is read.
        known: &'static str,
    },
    /// A field that is not what the format says.
    #[error("cannot read `{file}` as {format}: `{field}` {wrong}. Check that the file is one and was not edited, or export it again")]
    Field {
        /// Which.
        file: String,
        /// Name of the format.
        format: &'static str,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        wrong: String,
    },
}

/// A run that cannot be exported in that form.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The form needs every request.
    #[error(
        "cannot export run `{run}` as {format}: it has no request log, and this form has every request in it. Measure without `--no-request-log`, or export it as vllm, aiperf or inferencex"
    )]
    NoRequestLog {
        /// Run id.
        run: String,
        /// Name of the format.
        format: &'static str,
    },
    /// The form needs something that the run does not have.
    #[error("cannot export run `{run}` as {format}: {lacks}. {remedy}")]
    Lacks {
        /// Run id.
        run: String,
        /// Name of the format.
        format: &'static str,
        /// What is missing.
        lacks: String,
        /// What to do.
        remedy: String,
    },
    /// The form needs the rate at the SLO.
    #[error("cannot export as {format}, which is made of the rate at the SLO: {none}")]
    NoRate {
        /// Name of the format.
        format: &'static str,
        /// Why there is none, and what to do.
        none: NoCapacity,
    },
    /// Nothing was measured, or not that level.
    #[error("run `{run}` has no {what} to export. `plimsoll runs show {run} --format csv` lists its levels")]
    NoLevel {
        /// Run id.
        run: String,
        /// What is missing.
        what: String,
    },
    /// Writing into memory failed.
    #[error("cannot encode a level as {format}: {why}. This is a fault of plimsoll: please report it")]
    Encode {
        /// Name of the format.
        format: &'static str,
        /// What the encoder said.
        why: String,
    },
}
