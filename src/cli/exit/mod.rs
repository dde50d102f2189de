//! Exit codes are a contract: scripts, schedulers and monitoring read them.
//!
//! An error carries its code up an `anyhow` chain in one of two ways: its type is in the table of `exit::known`,
//! or the place that raised it said so ([`ExitWith::exit_with`]). What neither covers is an internal error.

mod known;

use std::fmt;

use serde::Serialize;

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// 0: ran, valid, no gate failed.
    Good,
    /// 1: a fault of plimsoll itself.
    Internal,
    /// 2: the command line cannot be understood.
    Usage,
    /// 3: ran and valid, but a gate failed, such as an SLO that is broken at the lowest load.
    GateFailed,
    /// 4: ran, but the measurement cannot be trusted.
    Invalid,
    /// 5: nothing could be decided: more runs or more time are needed.
    Inconclusive,
    /// 65: input data is bad: model, workload, trace, run folder.
    BadInput,
    /// 69: a target, a device or a library is not there.
    Unavailable,
    /// 73: an output cannot be created.
    CannotCreate,
    /// 74: an output cannot be written to its end, such as on a full disk.
    CannotWrite,
    /// 75: try again later: another run holds the node.
    Busy,
    /// 130: SIGINT, after saving what there was.
    Interrupted,
    /// 143: SIGTERM, after saving what there was.
    Terminated,
}

impl Exit {
    /// Every one, in order of code: the table in `plimsoll help` is made from it.
    pub const ALL: [Self; 13] = [
        Self::Good,
        Self::Internal,
        Self::Usage,
        Self::GateFailed,
        Self::Invalid,
        Self::Inconclusive,
        Self::BadInput,
        Self::Unavailable,
        Self::CannotCreate,
        Self::CannotWrite,
        Self::Busy,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The process's exit status.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::GateFailed => 3,
            Self::Invalid => 4,
            Self::Inconclusive => 5,
            Self::BadInput => 65,
            Self::Unavailable => 69,
            Self::CannotCreate => 73,
            Self::CannotWrite => 74,
            Self::Busy => 75,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// One line for the help text.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Good => "ran, valid, no gate failed",
            Self::Internal => "unexpected internal error",
            Self::Usage => "usage",
            Self::GateFailed => "ran and valid, but a gate failed (SLO broken at the lowest load)",
            Self::Invalid => "ran, but no valid measurement came of it",
            Self::Inconclusive => "nothing could be decided: more time or more runs are needed",
            Self::BadInput => "bad input data (model, workload, trace, run folder)",
            Self::Unavailable => "target, device or library unavailable",
            Self::CannotCreate => "an output cannot be created",
            Self::CannotWrite => "an output cannot be written (disk full)",
            Self::Busy => "another run holds this node: try again later",
            Self::Interrupted => "interrupted by SIGINT after saving a partial result",
            Self::Terminated => "ended by SIGTERM after saving a partial result",
        }
    }

    /// The code that an error carries: the outermost link of its chain that knows one.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(of_link).unwrap_or(Self::Internal)
    }
}

/// What one link of a chain says about the exit code.
fn of_link(link: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    link.downcast_ref::<Coded>().map(|coded| coded.exit).or_else(|| known::exit_of(link))
}

/// An error that says how the process shall end. Displays as the error inside.
struct Coded {
    exit: Exit,
    inner: anyhow::Error,
}

impl fmt::Debug for Coded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.inner, out)
    }
}

impl fmt::Display for Coded {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, out)
    }
}

impl std::error::Error for Coded {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source()
    }
}

/// Gives an error the exit code it shall end the process with.
pub trait ExitWith<T> {
    /// The same result; an error in it ends the process with `exit`.
    ///
    /// # Errors
    /// When `self` is one.
    fn exit_with(self, exit: Exit) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> ExitWith<T> for Result<T, E> {
    fn exit_with(self, exit: Exit) -> anyhow::Result<T> {
        self.map_err(|error| anyhow::Error::new(Coded { exit, inner: error.into() }))
    }
}

/// Whether standard output was closed by its reader (`plimsoll ... | head`).
pub(super) fn is_closed_stdout(error: &anyhow::Error) -> bool {
    error.chain().any(|link| link.is::<super::terminal::StdoutClosed>())
}

#[cfg(test)]
mod tests {
    use std::io;

    use anyhow::Context;

    use super::*;

    #[test]
    fn a_code_survives_context_and_leaves_the_message_alone() {
        let error = Err::<(), _>(io::Error::other("the header lies"))
            .context("cannot read `a.safetensors`")
            .exit_with(Exit::BadInput)
            .context("cannot load the model");
        let error = error.expect_err("it was made as one");
        assert_eq!(Exit::of(&error), Exit::BadInput);
        assert_eq!(format!("{error:#}"), "cannot load the model: cannot read `a.safetensors`: the header lies");
    }

    #[test]
    fn a_full_disk_is_known_anywhere_in_the_chain() {
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("cannot save");
        assert_eq!(Exit::of(&error), Exit::CannotWrite);
    }
}
