//! `plimsoll completions`: a shell's completion script, from the same clap tree as the help.

use clap_complete::Shell;

use crate::cli::exit::Exit;
use crate::cli::terminal::{Format, Terminal};

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  plimsoll completions bash > ~/.local/share/bash-completion/completions/plimsoll")]
pub struct CompletionsArgs {
    /// The shell to write for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
///
/// # Errors
/// When it cannot be printed.
pub fn run(args: &CompletionsArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    out.format_among(&[Format::Text])?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "plimsoll", &mut script);
    out.print(String::from_utf8_lossy(&script))?;
    Ok(Exit::Good)
}
