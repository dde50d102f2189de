//! `plimsoll spike --judge`: what came of a litmus test that was driven, also where it was killed in the middle.

use anyhow::anyhow;

use crate::campaign::account;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::spike::live::{exit, print};
use crate::cli::terminal::{Format, Terminal};
use crate::store::spikes::{self, SpikeStore};

/// Prints the saved result, or judges the calls that were logged before it was killed.
///
/// # Errors
/// When there is no such test, it is still driven, or it cannot be read or printed.
pub(super) fn run(name: &str, format: Format, out: &mut Terminal) -> anyhow::Result<Exit> {
    let folder = SpikeStore::at(&out.data_dir()?).find(name)?;
    // Asked first: whoever drives it lets go after the result is saved.
    let is_driven = spikes::is_driven(&folder);
    let litmus = match spikes::result(&folder)? {
        Some(litmus) => litmus,
        None if is_driven => {
            let error = anyhow!("the litmus test in `{}` is still driven. Wait for its end, or end it", folder.display());
            return Err(error).exit_with(Exit::Busy);
        }
        None => {
            let begun = spikes::begun(&folder)?;
            let driven = account::of_log(&begun.simulated.course, &begun.limits, &spikes::request_log(&folder));
            driven.beside(begun)
        }
    };
    print(&litmus, format, out)?;
    Ok(exit(litmus.verdict))
}
