//! How a failure is told: a sentence on standard error, and a document where `--format json` owes one.

use std::ffi::OsString;
use std::io::Write;

use serde::Serialize;

use crate::cli::exit::{Exit, is_closed_stdout};
use crate::cli::terminal::{Format, Quiet, Terminal};
use crate::record::SCHEMA_VERSION;

#[derive(Serialize)]
struct FailureDocument {
    schema_version: u32,
    error: Failure,
}

#[derive(Serialize)]
struct Failure {
    /// Name of the exit code.
    kind: Exit,
    exit_code: u8,
    message: String,
    /// The message's links, outermost first.
    causes: Vec<String>,
}

/// Tells an error that ended a verb, and says how the process ends.
pub(super) fn report(error: &anyhow::Error, out: &mut Terminal) -> Exit {
    if is_closed_stdout(error) {
        // Whatever there was to save has been saved before it is printed.
        return Exit::Good;
    }
    let exit = Exit::of(error);
    let causes = causes_of(error);
    tell(exit, causes.join(": "), causes, out)
}

/// Tells that plimsoll itself is wrong. The panic has said where on standard error.
pub(super) fn of_panic(out: &mut Terminal) -> Exit {
    let message = "plimsoll has a fault and had to stop; what was saved is whole. Please report the lines above and the command line";
    tell(Exit::Internal, message.to_owned(), vec![message.to_owned()], out)
}

/// The links of the chain, outermost first, without those that the link before already quotes.
fn causes_of(error: &anyhow::Error) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    for link in error.chain().map(ToString::to_string) {
        if causes.last().is_none_or(|before| !before.contains(&link)) {
            causes.push(link);
        }
    }
    causes
}

/// Tells a command line that cannot be understood; help and version are told here too.
pub(super) fn of_usage(error: &clap::Error, arguments: &[OsString]) -> Exit {
    if !error.use_stderr() {
        // Help that nobody reads to its end is not a failure.
        drop(error.print());
        return Exit::Good;
    }
    if !wants_json(arguments) {
        drop(error.print());
        return Exit::Usage;
    }
    let text = error.to_string();
    let message = point_of(&text);
    let mut out = Terminal::new(Format::Json, None, Quiet::No);
    tell(Exit::Usage, message.clone(), vec![message], &mut out)
}

/// What is wrong, in one line: all that stands before how the verb is used.
fn point_of(text: &str) -> String {
    let point = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let point = point.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    point.trim_start_matches("error: ").to_owned()
}

fn tell(exit: Exit, message: String, causes: Vec<String>, out: &mut Terminal) -> Exit {
    // A closed standard error leaves nobody to tell.
    drop(writeln!(anstream::stderr(), "plimsoll: {message}"));
    if out.owes_document() {
        let document =
            FailureDocument { schema_version: SCHEMA_VERSION, error: Failure { kind: exit, exit_code: exit.code(), message, causes } };
        drop(out.document(&document));
    }
    exit
}

/// Whether the command line, which could not be parsed, asks for JSON.
fn wants_json(arguments: &[OsString]) -> bool {
    let before_positionals = || arguments.iter().take_while(|argument| *argument != "--");
    before_positionals().any(|argument| argument == "--format=json")
        || before_positionals().zip(arguments.iter().skip(1)).any(|(flag, value)| flag == "--format" && value == "json")
}

#[cfg(test)]
mod tests {
    use super::causes_of;

    #[test]
    fn a_cause_that_the_message_quotes_is_not_said_twice() {
        let error =
            anyhow::anyhow!("no such file").context("cannot open `a`: no such file. Check the path").context("cannot read the trace");
        assert_eq!(causes_of(&error), ["cannot read the trace", "cannot open `a`: no such file. Check the path"]);
    }
}
