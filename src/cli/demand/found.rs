//! One pass over the logs, or two: where calls are not in order of time they are sorted outside of memory first.

use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;
use std::thread;

use anyhow::{Context, anyhow};

use crate::capacity::request_log::call::Call;
use crate::capacity::request_log::columns::Columns;
use crate::capacity::request_log::decode::{Decoder, WrongCell};
use crate::capacity::request_log::tally::{LogTally, Rejected};
use crate::cli::demand::DemandArgs;
use crate::cli::demand::bar::ReadingBar;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::terminal::Terminal;
use crate::record::demand::Demand;
use crate::table::reorder::{Reorder, TooLate};
use crate::table::scan::pattern::expand;
use crate::table::scan::{Batch, Reject, Scan};
use crate::table::sorted::Sorter;
use crate::table::source::Source;

/// Calls that are sorted in memory at once: 48 bytes each.
const IN_MEMORY: usize = 500_000;
/// Calls held back to put late ones in order, without sorting the whole log.
const HELD_BACK: usize = 50_000;
/// A log of fewer lines is not refused for the share of them that are no call, but only where none is left.
const LINES_TO_JUDGE: u64 = 100;

/// Reads every log that the arguments name.
pub(super) fn find(args: &DemandArgs, out: &Terminal) -> anyhow::Result<Demand> {
    let mut sources = Vec::new();
    for pattern in &args.files {
        sources.extend(expand(pattern)?);
    }
    let mut logs = Logs { args, sources, columns: None, rejected: Rejected::default(), lines: 0, bar: ReadingBar::new(out.progress()) };
    // What can be read once only cannot be begun again when a call turns out to be late.
    let once = logs.sources.iter().any(Source::is_stream);
    let tally = if once { None } else { logs.in_order()? };
    let tally = match tally {
        Some(tally) => tally,
        None => logs.sorted()?,
    };
    logs.finish(tally)
}

struct Logs<'a> {
    args: &'a DemandArgs,
    sources: Vec<Source>,
    columns: Option<Columns>,
    rejected: Rejected,
    lines: u64,
    bar: ReadingBar,
}

impl Logs<'_> {
    /// In the order of the files, but for calls that are a little late; `None` when one is later than that.
    fn in_order(&mut self) -> anyhow::Result<Option<LogTally>> {
        let mut tally: Option<LogTally> = None;
        let mut late = Reorder::new(HELD_BACK, |call: &Call| call.at);
        let edges = &self.args.load_buckets;
        let in_order = self.each(|columns, calls| {
            let tally = tally.get_or_insert_with(|| LogTally::new(columns, edges));
            Ok(match late.push(calls, |calls| calls.iter().for_each(|call| tally.add(call))) {
                Ok(()) => ControlFlow::Continue(()),
                Err(TooLate) => ControlFlow::Break(()),
            })
        })?;
        let Some(mut tally) = tally.or_else(|| self.empty()).filter(|_| in_order) else { return Ok(None) };
        let rest = late.finish(|calls| calls.iter().for_each(|call| tally.add(call)));
        Ok(rest.is_ok().then_some(tally))
    }

    fn empty(&self) -> Option<LogTally> {
        self.columns.as_ref().map(|columns| LogTally::new(columns, &self.args.load_buckets))
    }

    /// In order of time, whatever the order of the files.
    fn sorted(&mut self) -> anyhow::Result<LogTally> {
        tracing::info!("the calls are not in order of time: sorting them first");
        // One that is set to nothing is not set.
        let folder = Some(std::env::temp_dir()).filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| "/tmp".into());
        let mut sorter = Sorter::new(IN_MEMORY, &folder, |call: &Call| call.at);
        self.each(|_, calls| {
            for call in calls {
                sorter.push(*call).or_else(|cause| cannot_sort(&folder, &cause))?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let mut tally = self.empty().context("no log was read")?;
        for call in sorter.finish().or_else(|cause| cannot_sort(&folder, &cause))? {
            tally.add(&call.or_else(|cause| cannot_sort(&folder, &cause))?);
        }
        Ok(tally)
    }

    /// Gives the calls of all files, in batches; `false` when the receiver wants no more.
    fn each(&mut self, mut take: impl FnMut(&Columns, &[Call]) -> anyhow::Result<ControlFlow<()>>) -> anyhow::Result<bool> {
        let threads = self.args.threads.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
        (self.rejected, self.lines) = (Rejected::default(), 0);
        for source in self.sources.clone() {
            let scan = Scan::open(&source)?;
            let name = source.to_string();
            let columns = self.args.told.find(&name, scan.columns()).exit_with(Exit::BadInput)?;
            let decoder = Decoder::new(&columns, self.args.told.success());
            let mut taken = Ok(ControlFlow::Continue(()));
            let (rejected, lines, bar) = (&mut self.rejected, &mut self.lines, &mut self.bar);
            bar.begin(&name);
            let scanned = scan.run(
                decoder.wanted(),
                threads,
                |cells| decoder.decode(cells),
                |batch: &mut Batch<Call, WrongCell>| {
                    *lines += (batch.rows.len() + batch.rejected.len()) as u64;
                    for (line, reject) in batch.rejected.drain(..) {
                        let reason = match reject {
                            Reject::NotARow(_) => "not a row".to_owned(),
                            Reject::Cell(wrong) => wrong.to_string(),
                        };
                        rejected.add(reason, || format!("line {line} of `{name}`"));
                    }
                    bar.reached(batch.bytes, *lines);
                    taken = take(&columns, &batch.rows);
                    match taken {
                        Ok(flow) => flow,
                        Err(_) => ControlFlow::Break(()),
                    }
                },
            );
            self.columns.get_or_insert(columns);
            if taken?.is_break() {
                self.bar.clear();
                return Ok(false);
            }
            scanned?;
        }
        self.bar.clear();
        Ok(true)
    }

    fn finish(self, tally: LogTally) -> anyhow::Result<Demand> {
        let names: Vec<String> = self.sources.iter().map(Source::to_string).collect();
        let rejected = self.rejected.total() + tally.duplicates();
        let most = self.args.max_rejected;
        let none_left = tally.calls() == 0 && rejected > 0;
        if none_left || (self.lines >= LINES_TO_JUDGE && rejected as f64 > most * self.lines as f64) {
            let reasons: Vec<String> = self.rejected.by_reason.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            return Err(anyhow!(
                "{rejected} of {} lines of `{}` are no call, more than {} % ({}). The first: {}. Mend the lines, name the right columns with `--column`, or allow more with `--max-rejected`",
                self.lines,
                names.join("`, `"),
                100.0 * most,
                reasons.join(", "),
                self.rejected.first.join("; ")
            ))
            .exit_with(Exit::BadInput);
        }
        let columns = self.columns.context("no log was read")?;
        let short = names.iter().map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect();
        Ok(tally.finish(&columns, short, self.rejected, self.args.told.kind()))
    }
}

/// The folder takes no file, or no more of one.
fn cannot_sort<T>(folder: &Path, cause: &io::Error) -> anyhow::Result<T> {
    use io::ErrorKind::{FileTooLarge, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    let (exit, remedy) = match cause.kind() {
        NotFound | NotADirectory | PermissionDenied | ReadOnlyFilesystem => {
            (Exit::CannotCreate, "Name a folder that is there and may be written to with TMPDIR")
        }
        FileTooLarge => (Exit::CannotWrite, "Raise the file size limit (`ulimit -f`)"),
        _ => (Exit::CannotWrite, "Free space there, or name another folder with TMPDIR"),
    };
    Err(anyhow!("cannot sort the log in `{}`: {cause}. {remedy}", folder.display())).exit_with(exit)
}
