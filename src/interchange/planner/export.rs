//! From a run, and its request log where a form is made of requests, to the files of one form.

use serde_json::{Value, json};

use crate::interchange::error::ExportError;
use crate::interchange::export::File;
use crate::interchange::planner::form::Form;
use crate::interchange::planner::points::{Dropped, Points, replicas};
use crate::interchange::planner::sidecar::{self, Comments, Content, Made};
use crate::interchange::planner::{aiconfigurator, dynamo, dynamo_fpm, inference_sim, keda, latency_predictor, llmd, prometheus, vidur};
use crate::record::level::{LevelRecord, Offered};
use crate::record::request::RequestRecord;
use crate::record::run::RunRecord;

/// What is asked beside the form.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Tokens of one replica's KV cache, where somebody states them.
    pub kv_tokens: Option<u64>,
    /// Share added to the need, for forms that have room for it.
    pub headroom: f64,
    /// Query of the rate of calls.
    pub query: Option<String>,
    /// Levels as a table of our own.
    pub table: String,
}

/// An export under way.
#[derive(Debug)]
pub struct PlannerExport<'a> {
    run: &'a RunRecord,
    form: Form,
    levels: Vec<&'a LevelRecord>,
    asked: Asked,
    lines: Vec<u8>,
    entries: u64,
    traces: Vec<(String, Vec<u8>)>,
    dropped: Vec<Dropped>,
}

impl<'a> PlannerExport<'a> {
    /// Begins, with the levels that may be in it.
    ///
    /// # Errors
    /// When the form is made of requests and there is no log, or something of the run stands in the way of it.
    pub fn new(run: &'a RunRecord, form: Form, levels: Vec<&'a LevelRecord>, asked: Asked, has_log: bool) -> Result<Self, ExportError> {
        if form.needs_requests() && !has_log {
            return Err(ExportError::Lacks {
                run: run.id.clone(),
                format: form.name(),
                lacks: "it has no request log, and this form is made of requests".to_owned(),
                remedy: "Measure without `--no-request-log`".to_owned(),
            });
        }
        let export = Self { run, form, levels, asked, lines: Vec::new(), entries: 0, traces: Vec::new(), dropped: Vec::new() };
        if form == Form::LatencyPredictor {
            dynamo::kv_tokens(run, &export.points(), form.name())?;
            if replicas(run).0 > 1 {
                return Err(ExportError::Lacks {
                    run: run.id.clone(),
                    format: form.name(),
                    lacks: format!("its {} replicas shared the load, and the log does not say which served a request", replicas(run).0),
                    remedy: "Measure one replica (`--device`)".to_owned(),
                });
            }
        }
        Ok(export)
    }

    /// The folder that all of its files are in.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}-{}", self.form.name(), self.run.id)
    }

    fn points(&self) -> Points {
        Points::of(self.run, &self.levels, self.asked.kv_tokens)
    }

    /// Takes one level with all its requests.
    pub fn level(&mut self, level: &LevelRecord, requests: &[RequestRecord]) {
        let mut drop = |why: String| self.dropped.push(Dropped { level: level.index, purpose: level.purpose.to_string(), why });
        if !level.verdict.is_valid() {
            return drop(level.verdict.to_string());
        }
        match (self.form, &level.offered) {
            (Form::Vidur, Offered::Closed { .. }) => drop("a closed loop: its arrivals are what the target made of them".to_owned()),
            (Form::Vidur, Offered::Open { .. }) => {
                self.traces.push((format!("trace-level{:03}.csv", level.index), vidur::trace(level, requests)));
            }
            _ => {
                let kv_tokens = self.asked.kv_tokens.or(self.run.target.batch.kv_tokens).unwrap_or(u64::MAX);
                self.entries += latency_predictor::append_lines(&mut self.lines, level, requests, kv_tokens);
            }
        }
    }

    /// Ends: the files, below their folder, and what to warn of.
    ///
    /// # Errors
    /// When the run lacks what the form needs.
    pub fn finish(mut self) -> Result<(Vec<File>, Vec<String>), ExportError> {
        let (run, form) = (self.run, self.form);
        let headroom = (form == Form::Keda).then_some(self.asked.headroom);
        let comments = Comments::of(run, form, headroom);
        let points = self.points();
        let content = match form {
            Form::Dynamo => dynamo::files(run, &points)?,
            Form::DynamoFpm => dynamo_fpm::files(run, &points)?,
            Form::Aic => aiconfigurator::files(run, &self.levels)?,
            Form::LlmdQueue => llmd::queue(run, &points)?,
            Form::LlmdPerfparms => llmd::perfparms(run, &points, &comments)?,
            Form::InferenceSim => inference_sim::files(run, &points, &comments)?,
            Form::Keda => keda::files(run, self.asked.headroom, self.asked.query.as_deref(), &comments)?,
            Form::Prometheus => prometheus::files(run, &comments)?,
            Form::Csv => Content::one("levels.csv", std::mem::take(&mut self.asked.table).into_bytes(), Value::Null),
            Form::LatencyPredictor => {
                self.require(self.entries > 0, "no completed request with two tokens and more lies in the window of a valid level")?;
                Content::one("training.jsonl", std::mem::take(&mut self.lines), json!({"entries": self.entries}))
            }
            Form::Vidur => {
                self.require(!self.traces.is_empty(), "no valid open-loop level is among those asked for")?;
                Content { files: std::mem::take(&mut self.traces), details: Value::Null, warnings: Vec::new() }
            }
        };
        let Content { files, details, mut warnings } = content;
        let mut dropped = std::mem::take(&mut self.dropped);
        if !form.needs_requests() && !matches!(form, Form::Aic | Form::Keda | Form::Prometheus | Form::Csv) {
            dropped.extend(points.dropped);
        }
        if !dropped.is_empty() && form != Form::Vidur {
            warnings.push(format!("{} levels are left out; `{}` says why", dropped.len(), sidecar::NAME));
        }
        let names = files.iter().map(|(name, _)| name.clone()).collect();
        let made = Made { files: names, dropped, headroom, details, warnings: warnings.clone() };
        let beside = format!("{:#}\n", sidecar::document(run, form, &made)).into_bytes();
        let folder = self.folder();
        let files = files.into_iter().chain([(sidecar::NAME.to_owned(), beside)]);
        Ok((files.map(|(name, bytes)| File { name: format!("{folder}/{name}"), bytes }).collect(), warnings))
    }

    fn require(&self, there: bool, lacks: &str) -> Result<(), ExportError> {
        let (run, format) = (self.run.id.clone(), self.form.name());
        if there { Ok(()) } else { Err(ExportError::Lacks { run, format, lacks: lacks.to_owned(), remedy: MORE.to_owned() }) }
    }
}

const MORE: &str = "Measure with `plimsoll bench`, or ask for other levels with `--level`";
