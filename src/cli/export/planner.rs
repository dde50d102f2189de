//! `plimsoll export` for planners: a folder of files and what is to be said of them.

use std::path::Path;

use super::{ExportArgs, Written, refuse_taken, requests_of, write};
use crate::interchange::planner::export::{Asked, PlannerExport};
use crate::interchange::planner::form::Form;
use crate::record::level::LevelRecord;
use crate::record::run::RunRecord;
use crate::report::csv;
use crate::store::request_log::reader::Requests;
use crate::units::share::Headroom;

/// Makes and writes them; what to know before using them goes to the log.
pub(super) fn files(
    args: &ExportArgs,
    run: &RunRecord,
    levels: Vec<&LevelRecord>,
    form: Form,
    log: Option<&Path>,
) -> anyhow::Result<Vec<Written>> {
    let kept = run.demand.headroom.map(Headroom::new).transpose()?;
    let asked = Asked {
        kv_tokens: args.kv_tokens,
        headroom: args.headroom.or(kept).unwrap_or(Headroom::TYPICAL).get(),
        query: args.query.clone(),
        table: if form == Form::Csv { csv::text(levels.iter().copied())? } else { String::new() },
    };
    let mut export = PlannerExport::new(run, form, levels.clone(), asked, log.is_some())?;
    refuse_taken(&args.out, &[export.folder()], args.force)?;
    if let Some(log) = log.filter(|_| form.needs_requests()) {
        let mut requests = Requests::open(log)?.peekable();
        for level in levels {
            let of_level = requests_of(&mut requests, level)?;
            export.level(level, &of_level);
        }
    }
    let (files, warnings) = export.finish()?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    files.iter().map(|file| write(&args.out, file)).collect()
}
