//! What of a trace is replayed, how fast, and how long its prompts and answers are made.

use crate::clock::Nanos;
use crate::workload::fit::Caps;
use crate::workload::trace::format::TraceFormat;

/// How a trace is used.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceOptions {
    /// Its form; `None` guesses from the columns.
    pub format: Option<TraceFormat>,
    /// Its own stamps run this many times faster; 1 as recorded.
    pub speed: f64,
    /// Its lengths are multiplied by this; 1 as recorded.
    pub scale: f64,
    /// Longest prompts and answers, applied after scaling; what is cut off a prompt is its end.
    pub caps: Caps,
    /// Only the first rows, this many, failed calls included.
    pub first: Option<u64>,
    /// Only rows that arrived from the first to before the second of these times since the first row.
    pub window: Option<(Nanos, Nanos)>,
    /// Rows may stand this many places too early: they are put in order by time. 0 wants a sorted trace.
    pub reorder: usize,
    /// What happens after the last row.
    pub at_end: AtEnd,
}

impl Default for TraceOptions {
    fn default() -> Self {
        Self { format: None, speed: 1.0, scale: 1.0, caps: Caps::default(), first: None, window: None, reorder: 0, at_end: AtEnd::Stop }
    }
}

/// What happens after the last row of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtEnd {
    /// The traffic is over.
    #[default]
    Stop,
    /// It begins again, later stamps and prompts of their own, so that a cache cannot know them.
    Repeat,
}
