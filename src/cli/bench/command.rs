//! The command line of a run: kept so that it can be repeated from anywhere, and how to go on with it.

use std::ffi::OsString;
use std::path::{Path, absolute};

use crate::cli::bench::args::{BenchArgs, TargetKind};
use crate::cli::exit::{Exit, ExitWith};
use crate::record::run::RunStatus;

/// Flags whose value may be a path.
const PATHS: [&str; 4] = ["--model", "--trace", "--workload", "--law"];

/// `arguments` as the run's record keeps them: paths are absolute, because a run is resumed from wherever.
///
/// # Errors
/// When one is no UTF-8: a JSON record could not hold it.
pub(super) fn kept(arguments: &[OsString], args: &BenchArgs) -> anyhow::Result<Vec<String>> {
    if args.resume.is_some() {
        return Ok(Vec::new());
    }
    // Of a server `--model` is a name, also where a folder here is called the same.
    let is_named = matches!(args.target.target, TargetKind::Server(_));
    let paths = || PATHS.iter().filter(|flag| !(is_named && **flag == "--model"));
    let mut kept = Vec::with_capacity(arguments.len());
    let mut is_path = false;
    for argument in arguments {
        let Some(text) = argument.to_str() else {
            let what = format!("cannot keep the argument `{}`: it is not UTF-8. Give the file another name", argument.to_string_lossy());
            return Err(anyhow::anyhow!(what)).exit_with(Exit::Usage);
        };
        let flag = paths().find(|flag| text.strip_prefix(**flag).is_some_and(|value| value.starts_with('=')));
        kept.push(match flag {
            _ if is_path => from_anywhere(text),
            Some(flag) => format!("{flag}={}", from_anywhere(&text[flag.len() + 1..])),
            None => text.to_owned(),
        });
        is_path = paths().any(|flag| *flag == text);
    }
    Ok(kept)
}

/// A path that is there, made absolute; anything else is the name of a preset.
fn from_anywhere(value: &str) -> String {
    let path = Path::new(value);
    let there = path.exists().then(|| absolute(path).ok()?.to_str().map(str::to_owned)).flatten();
    there.unwrap_or_else(|| value.to_owned())
}

/// The command that goes on with a run.
pub(super) fn resuming(id: &str, data_dir: &Path, status: RunStatus) -> String {
    let more = if status == RunStatus::OutOfBudget { " --budget TIME" } else { "" };
    let folder = absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    format!("plimsoll bench --resume {id}{more} --data-dir '{}'", folder.display())
}
