//! Draws a campaign's progress on standard error: a live line on a terminal, plain lines otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::campaign::progress::{Part, Progress as Told, Watcher};
use crate::cli::terminal::{self, Progress};
use crate::clock::{Clock, Monotonic, Nanos};
use crate::record::level::{LevelRecord, Offered, Purpose};

/// The watcher of the terminal.
#[derive(Debug)]
pub struct Drawn {
    how: Progress,
    bar: ProgressBar,
    level: String,
    clock: Monotonic,
    /// When the last line was printed.
    said: Nanos,
}

/// Plain lines go into logs: a long level says this often that it is alive.
const LINE_EVERY: Nanos = Nanos::from_secs(10);

impl Drawn {
    /// Draws as `how` says.
    #[must_use]
    pub fn new(how: Progress) -> Self {
        let bar = match how {
            Progress::Drawn => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8)),
            Progress::Silent | Progress::Lines => ProgressBar::hidden(),
        };
        bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        if how == Progress::Drawn {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self { how, bar, level: String::new(), clock: Monotonic::start(), said: Nanos::ZERO }
    }

    /// Takes the live line away: what follows is printed on a clean terminal.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&mut self, text: &str) {
        self.said = self.clock.now();
        match self.how {
            Progress::Silent => {}
            Progress::Drawn => self.bar.println(text),
            Progress::Lines => terminal::note(format_args!("[{}] {text}", stamp(self.clock.now()))),
        }
    }
}

impl Drawn {
    /// What goes on: always on a live line, now and then as a plain one.
    fn goes_on(&mut self, text: String) {
        if self.how == Progress::Lines && self.clock.now().since(self.said) >= LINE_EVERY {
            self.line(&text);
        }
        self.bar.set_message(text);
    }
}

impl Watcher for Drawn {
    fn tell(&mut self, told: Told<'_>) {
        match told {
            Told::Loading { done, total } => {
                let share = 100.0 * done as f64 / (total as f64).max(1.0);
                self.goes_on(format!("weights {share:.0} % of {:.2} GB", total as f64 / 1e9));
            }
            Told::Begins { expected_s } => self.line(&format!("about {} of measuring", duration(expected_s))),
            Told::LevelBegins { purpose, offered } => {
                self.level = name(purpose, offered);
                self.bar.set_message(self.level.clone());
            }
            Told::LevelGoesOn { part, elapsed_s, in_flight, tokens } => {
                let part = match part {
                    Part::WarmUp => "settling",
                    Part::Window => "measuring",
                    Part::Tail => "following the cohort",
                };
                let rate = tokens as f64 / elapsed_s.max(1e-9);
                self.goes_on(format!("{}: {part}, {elapsed_s:.1} s, {in_flight} in flight, {rate:.0} tokens/s", self.level));
            }
            Told::CourseGoesOn { text, in_flight } => self.goes_on(format!("{text}, {in_flight} in flight")),
            Told::LevelEnded(level) => self.line(&summary(level, "")),
            Told::LevelResumed(level) => self.line(&summary(level, " (from the saved run)")),
            Told::Note(text) => self.line(&text),
        }
    }
}

fn name(purpose: &Purpose, offered: &Offered) -> String {
    let purpose = match purpose {
        Purpose::Reference { position } => format!("reference ({position})"),
        Purpose::Sweep => "sweep".to_owned(),
        Purpose::Search => "search".to_owned(),
        Purpose::Confirmation { run } => format!("confirmation {run}"),
        Purpose::Curve => "curve".to_owned(),
        Purpose::Solo { .. } | Purpose::PlannerPrefill { .. } | Purpose::PlannerDecode { .. } => purpose.to_string(),
    };
    match offered {
        Offered::Closed { concurrency } => format!("{purpose}, {concurrency} in flight"),
        Offered::Open { calls_per_s, .. } => format!("{purpose}, {calls_per_s:.2} calls/s offered"),
    }
}

fn summary(level: &LevelRecord, remark: &str) -> String {
    let millis = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
    format!(
        "{:<42} {:>9.2} calls/s {:>9.0} tokens/s  TTFT p50 {} p99 {} ms  TPOT p50 {} p99 {} ms  {}{remark}",
        name(&level.purpose, &level.offered),
        level.throughput.calls_per_s,
        level.throughput.output_tokens_per_s,
        millis(level.latency.ttft.adjusted.p50),
        millis(level.latency.ttft.adjusted.p99),
        millis(level.latency.tpot.adjusted.p50),
        millis(level.latency.tpot.adjusted.p99),
        level.verdict,
    )
}

/// Hours, minutes and seconds since the program began.
fn stamp(now: Nanos) -> String {
    let seconds = now.0 / 1_000_000_000;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A length of time as people say it.
#[must_use]
pub fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5400.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}
