//! A recording of samples as a source: what a sampler saw once, seen again.
//!
//! Lines of JSON, one look each, as [`write()`] makes them. Played as a [`Source`], each call answers with the next look of its kind, the
//! last one for ever; read as a [`Timeline`], the stamps are the recorded ones, so that a window of then can be judged by
//! rules of now.

use std::io::{self, BufRead};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::record::reading::{Missing, Reading};
use crate::telemetry::Source;
use crate::telemetry::procfs::HostSample;
use crate::telemetry::sample::{Fast, Slow, XidEvent};
use crate::telemetry::timeline::Timeline;

/// One line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When, on the clock of the run that recorded it.
    pub at: Nanos,
    /// What was seen.
    #[serde(flatten)]
    pub look: Look,
}

/// What one call saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// What changes within a window, of the GPU at that place among the watched ones.
    Fast(usize, Fast),
    /// What changes seldom.
    Slow(usize, Slow),
    /// A new value of the energy counter, joules.
    Energy(usize, f64),
    /// A fault that the driver reported.
    Xid(XidEvent),
    /// This process and its machine.
    Host(HostSample),
}

/// A recording is not in order.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It cannot be read.
    #[error("cannot read the recording: {0}. Check the path")]
    Read(#[from] io::Error),
    /// A line is none.
    #[error("line {line} of the recording is no sample: {wrong}. Record it anew")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        wrong: String,
    },
}

/// A timeline as lines of JSON, in order of time.
///
/// # Errors
/// When a sample is no JSON, which none is that was read.
pub fn write(timeline: &Timeline) -> Result<String, serde_json::Error> {
    let mut lines = Vec::new();
    for (gpu, samples) in timeline.gpus.iter().enumerate() {
        lines.extend(samples.fast.iter().map(|(at, fast)| Line { at: *at, look: Look::Fast(gpu, *fast) }));
        lines.extend(samples.slow.iter().map(|(at, slow)| Line { at: *at, look: Look::Slow(gpu, slow.clone()) }));
        lines.extend(samples.energy.iter().map(|(at, joules)| Line { at: *at, look: Look::Energy(gpu, *joules) }));
    }
    lines.extend(timeline.xids.iter().map(|(at, event)| Line { at: *at, look: Look::Xid(*event) }));
    lines.extend(timeline.host.iter().map(|(at, host)| Line { at: *at, look: Look::Host(*host) }));
    lines.sort_by_key(|line| line.at);
    lines.iter().map(|line| serde_json::to_string(line).map(|text| text + "\n")).collect()
}

/// The lines of a recording.
///
/// # Errors
/// When one cannot be read, or is no sample.
pub fn read(recording: impl BufRead) -> Result<Vec<Line>, ReplayError> {
    let parse = |(index, text): (usize, io::Result<String>)| {
        serde_json::from_str(&text?).map_err(|error| ReplayError::Line { line: index + 1, wrong: error.to_string() })
    };
    recording.lines().enumerate().map(parse).collect()
}

/// The recording with its own stamps.
#[must_use]
pub fn timeline(lines: &[Line]) -> Timeline {
    let gpu = |look: &Look| match look {
        Look::Fast(gpu, _) | Look::Slow(gpu, _) | Look::Energy(gpu, _) => gpu + 1,
        Look::Xid(event) => event.gpu + 1,
        Look::Host(_) => 0,
    };
    let mut timeline = Timeline::of(lines.iter().map(|line| gpu(&line.look)).max().unwrap_or(0));
    for line in lines {
        match &line.look {
            Look::Fast(gpu, fast) => timeline.fast(*gpu, line.at, *fast),
            Look::Slow(gpu, slow) => timeline.slow(*gpu, line.at, slow.clone()),
            Look::Energy(gpu, joules) => timeline.energy(*gpu, line.at, Reading::Value(*joules)),
            Look::Xid(event) => timeline.xids.push(line.at, *event),
            Look::Host(host) => timeline.host.push(line.at, *host),
        }
    }
    timeline
}

/// A recording that is played.
#[derive(Debug)]
pub struct Replay {
    lines: Vec<Line>,
    /// How far each kind of each GPU was played: kind, GPU, next line.
    played: Mutex<Vec<(u8, usize, usize)>>,
}

impl Replay {
    /// Plays these lines.
    #[must_use]
    pub fn of(lines: Vec<Line>) -> Self {
        Self { lines, played: Mutex::new(Vec::new()) }
    }

    /// The next look of a kind that `wanted` takes, or its last one again.
    fn next<T>(&self, kind: u8, gpu: usize, wanted: impl Fn(&Look) -> Option<T>) -> Option<(T, bool)> {
        let Ok(mut played) = self.played.lock() else { return None };
        let index = played.iter().position(|(of, at, _)| (*of, *at) == (kind, gpu)).unwrap_or_else(|| {
            played.push((kind, gpu, 0));
            played.len() - 1
        });
        let begin = played[index].2;
        let fresh = self.lines[begin..].iter().enumerate().find_map(|(offset, line)| Some((begin + offset, wanted(&line.look)?)));
        if let Some((at, look)) = fresh {
            played[index].2 = at + 1;
            return Some((look, true));
        }
        self.lines[..begin].iter().rev().find_map(|line| wanted(&line.look)).map(|look| (look, false))
    }
}

impl Source for Replay {
    fn energy_j(&self, gpu: usize) -> Reading<f64> {
        let wanted = |look: &Look| if let Look::Energy(of, joules) = look { (*of == gpu).then_some(*joules) } else { None };
        self.next(0, gpu, wanted).map(|(joules, _)| joules).ok_or(Missing::NotSupported).into()
    }

    fn fast(&self, gpu: usize) -> Fast {
        let wanted = |look: &Look| if let Look::Fast(of, fast) = look { (*of == gpu).then_some(*fast) } else { None };
        self.next(1, gpu, wanted).map_or_else(|| Fast::none(Missing::NoSample), |(fast, _)| fast)
    }

    fn slow(&self, gpu: usize) -> Slow {
        let wanted = |look: &Look| if let Look::Slow(of, slow) = look { (*of == gpu).then(|| slow.clone()) } else { None };
        self.next(2, gpu, wanted).map(|(slow, _)| slow).unwrap_or_default()
    }

    fn wait_for_xid(&self, patience: Duration) -> Reading<Option<XidEvent>> {
        let wanted = |look: &Look| if let Look::Xid(event) = look { Some(*event) } else { None };
        let event = self.next(3, 0, wanted).filter(|(_, fresh)| *fresh).map(|(event, _)| event);
        if event.is_none() {
            thread::sleep(patience);
        }
        Reading::Value(event)
    }
}
