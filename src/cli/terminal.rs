//! What a verb prints through: the result to standard output, nothing else.
//!
//! With `--format json` standard output carries exactly one document, also when the verb fails. Progress and logs
//! go to standard error and are none of this module's business. A reader that closes the pipe is not a failure.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::ValueEnum;
use etcetera::BaseStrategy;
use serde::Serialize;

use crate::cli::exit::{Exit, ExitWith};

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document with `schema_version`.
    Json,
    /// Where a verb has a report.
    Markdown,
    /// Where a verb has rows.
    Csv,
}

impl fmt::Display for Format {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Markdown => "markdown",
            Self::Csv => "csv",
        })
    }
}

/// The reader of standard output went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("standard output was closed")]
pub struct StdoutClosed;

/// Standard output, and what a verb was told about printing.
pub struct Terminal {
    out: Box<dyn Write>,
    format: Format,
    data_dir: Option<PathBuf>,
    progress: Progress,
    document_printed: bool,
}

/// How progress is shown on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing (`--quiet`).
    Silent,
    /// Plain lines: standard error is no terminal.
    Lines,
    /// Bars that redraw themselves.
    Drawn,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Terminal").field("format", &self.format).field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

impl Terminal {
    /// Prints to standard output. `data_dir` as given by flag or environment.
    #[must_use]
    pub fn new(format: Format, data_dir: Option<PathBuf>, quiet: Quiet) -> Self {
        let progress = match quiet {
            Quiet::Yes => Progress::Silent,
            Quiet::No if io::stderr().is_terminal() => Progress::Drawn,
            Quiet::No => Progress::Lines,
        };
        Self { out: Box::new(anstream::stdout()), format, data_dir, progress, document_printed: false }
    }

    /// The asked format, if it is one of those the verb has.
    ///
    /// # Errors
    /// A usage error that lists `supported`.
    pub fn format_among(&self, supported: &[Format]) -> anyhow::Result<Format> {
        if supported.contains(&self.format) {
            return Ok(self.format);
        }
        let known = supported.iter().map(|format| format!("`{format}`")).collect::<Vec<_>>().join(", ");
        Err(anyhow::anyhow!("this verb cannot print `--format {}`. Choose one of {known}", self.format)).exit_with(Exit::Usage)
    }

    /// The asked format.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// How progress is shown.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Columns to lay tables out in: the terminal's, 80 where standard output is none.
    #[must_use]
    pub fn width(&self) -> u16 {
        rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col).filter(|columns| *columns > 0).unwrap_or(80)
    }

    /// The folder that runs are kept in: `--data-dir`, `PLIMSOLL_DATA_DIR`, else `plimsoll` in the user's data folder.
    ///
    /// # Errors
    /// When none was given and the user has no home.
    pub fn data_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(given) = &self.data_dir {
            return Ok(given.clone());
        }
        let base = etcetera::choose_base_strategy()
            .context("cannot tell where to keep runs. Give a folder with `--data-dir`")
            .exit_with(Exit::CannotCreate)?;
        Ok(base.data_dir().join("plimsoll"))
    }

    /// Prints text as it is. Escape sequences are dropped where colour is not wanted.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print(&mut self, text: impl fmt::Display) -> anyhow::Result<()> {
        let done = write!(self.out, "{text}").and_then(|()| self.out.flush());
        stdout_result(done)
    }

    /// Prints a line.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn line(&mut self, text: impl fmt::Display) -> anyhow::Result<()> {
        self.print(format_args!("{text}\n"))
    }

    /// Prints the one JSON document of this process. The value brings its own `schema_version`.
    ///
    /// # Errors
    /// When one was printed before, or standard output cannot be written.
    pub fn document<T: Serialize + ?Sized>(&mut self, value: &T) -> anyhow::Result<()> {
        if self.document_printed {
            bail!("a second JSON document was about to be printed");
        }
        let text = serde_json::to_string_pretty(value).context("cannot write the result as JSON")?;
        self.document_printed = true;
        self.line(text)
    }

    /// Whether `--format json` still owes its reader a document.
    pub(super) fn owes_document(&self) -> bool {
        self.format == Format::Json && !self.document_printed
    }
}

/// Says a line on standard error. Where that is closed nobody listens, which ends nothing.
pub fn note(text: impl fmt::Display) {
    drop(writeln!(anstream::stderr(), "{text}"));
}

/// Whether progress and notes are unwanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// Only errors are said.
    Yes,
    /// Progress and warnings too.
    No,
}

/// Gives a write to standard output its place in the exit-code contract.
fn stdout_result(done: io::Result<()>) -> anyhow::Result<()> {
    match done {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        Err(error) => Err(error).context("cannot write to standard output").exit_with(Exit::CannotWrite),
    }
}
