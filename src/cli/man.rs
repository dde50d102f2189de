//! `plimsoll man`: the manual pages, from the same clap tree as the help.

use std::path::PathBuf;

use anyhow::Context;

use crate::cli::exit::Exit;
use crate::cli::terminal::{Format, Terminal};
use crate::store::atomic;

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll man | man -l -\n  plimsoll man ~/.local/share/man/man1")]
pub struct ManArgs {
    /// Folder for one page per verb; without it the main page is printed
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Prints the main page, or writes them all.
///
/// # Errors
/// When a page cannot be printed or written.
pub fn run(args: &ManArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    out.format_among(&[Format::Text])?;
    let mut command = super::command();
    command.build();
    let Some(folder) = &args.folder else {
        out.print(String::from_utf8_lossy(&page(&command)?))?;
        return Ok(Exit::Good);
    };
    atomic::create_folder(folder)?;
    for (name, page) in pages(&command)? {
        atomic::write(&folder.join(format!("{name}.1")), &page)?;
    }
    Ok(Exit::Good)
}

fn page(command: &clap::Command) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text).context("cannot lay out a manual page")?;
    Ok(text)
}

/// The page of every verb by its file name.
fn pages(command: &clap::Command) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut all = vec![(command.get_display_name().unwrap_or(command.get_name()).to_owned(), page(command)?)];
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        all.extend(pages(verb)?);
    }
    Ok(all)
}
