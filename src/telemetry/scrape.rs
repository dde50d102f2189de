//! Looks at a page of metrics, usually once a second, on a thread of its own, for as long as it is wanted.
//!
//! Nothing waits for it and it is never joined: a server that does not answer leaves a reason where a value would be. What the looks
//! mean over a window is a pure function of them ([`over()`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock::{Clock, Monotonic, Nanos};
use crate::http::client::{Client, ExchangeError};
use crate::record::reading::{Missing, Reading};
use crate::record::server_window::{Added, MeanMax, ServerWindow};
use crate::telemetry::counters::ServerCounters;
use crate::telemetry::timeline::Samples;

/// How often it is looked.
pub const PERIOD: Nanos = Nanos::from_secs(1);
/// How long one look may take.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// A look speaks for the time around it, as far as this: a little more than half a period.
const REACH: Nanos = Nanos::from_millis(750);
/// Looks that are kept: two hours of them.
const MOST: usize = 7_200;
/// The usual path.
pub const METRICS: &str = "/metrics";

/// A page of metrics.
#[derive(Clone, Debug)]
pub struct Page {
    /// Who is asked, and how.
    pub client: Client,
    /// For what: begins with a slash.
    pub path: String,
}

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum NoPage {
    /// There was no answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The answer was none of metrics.
    #[error("{page} answers {status}: {said}")]
    Refused {
        /// Which.
        page: String,
        /// Its status.
        status: u16,
        /// In its own words.
        said: String,
    },
}

impl Page {
    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}{}", self.client.endpoint, self.path)
    }

    /// The page as it is now.
    ///
    /// # Errors
    /// When it does not come in time, or not with 200.
    pub fn get(&self) -> Result<String, NoPage> {
        let answer = self.client.get(&self.path)?;
        if answer.head.status != 200 {
            return Err(NoPage::Refused { page: self.url(), status: answer.head.status, said: answer.said() });
        }
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}

/// Looks, each a value or the reason why there is none.
pub type Looks = Samples<Reading<ServerCounters>>;

/// Looks at a server's page. Dropped, its thread ends on its own.
#[derive(Debug)]
pub struct Scraper {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    looks: Mutex<Looks>,
    stopped: AtomicBool,
}

impl Scraper {
    /// Begins to look at `page` each `period`, with stamps of `clock`; `at_start` is what the thread does first, such as keeping off a
    /// core.
    #[must_use]
    pub fn start(page: Page, period: Nanos, clock: Monotonic, at_start: fn()) -> Self {
        let shared = Arc::new(Shared { looks: Mutex::new(Samples::up_to(MOST)), stopped: AtomicBool::new(false) });
        let looking = Arc::clone(&shared);
        let started = thread::Builder::new().name("telemetry-server".to_owned()).spawn(move || {
            at_start();
            let mut due = clock.now();
            while !looking.stopped.load(Ordering::Relaxed) {
                let asked = clock.now();
                let counters = page.get().map_or(Err(Missing::Failed), |text| Ok(ServerCounters::read(&text)));
                // The server wrote it somewhere between the two.
                let at = asked + Nanos(clock.now().since(asked).0 / 2);
                looking.looks().push(at, counters.into());
                due = (due + period).max(clock.now());
                thread::sleep(Duration::from_nanos(due.since(clock.now()).0));
            }
        });
        // Without its thread there are no looks, which is seen as such.
        drop(started);
        Self { shared }
    }

    /// What was seen over a window.
    #[must_use]
    pub fn over(&self, from: Nanos, to: Nanos) -> ServerWindow {
        over(&self.shared.looks(), from, to)
    }
}

impl Shared {
    /// A panic while it was held leaves looks that are whole.
    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

/// What looks say of a window: of gauges mean and maximum, of totals what they grew by between the first and the last look inside it.
#[must_use]
pub fn over(looks: &Looks, from: Nanos, to: Nanos) -> ServerWindow {
    let inside = looks.within(from, to).filter_map(|(at, look)| Some((*at, look.get()?))).collect::<Vec<_>>();
    let gauge = |read: fn(&ServerCounters) -> Reading<f64>| mean_max(inside.iter().map(|(_, look)| read(look)));
    ServerWindow {
        samples: inside.len() as u64,
        coverage: coverage(inside.iter().map(|(at, _)| *at), from, to),
        running: gauge(|look| look.running),
        waiting: gauge(|look| look.waiting),
        kv_usage: gauge(|look| look.kv_usage),
        added: added(&inside, from).into(),
    }
}

fn added(inside: &[(Nanos, ServerCounters)], from: Nanos) -> Result<Added, Missing> {
    let (Some((begin, _)), Some((end, _))) = (inside.first(), inside.last()) else { return Err(Missing::NoSample) };
    if begin == end {
        return Err(Missing::WindowTooShort);
    }
    let growth = |read: fn(&ServerCounters) -> Reading<f64>| growth(inside.iter().map(|(_, look)| read(look)));
    let share = |hits: f64, queries: f64| if queries > 0.0 { Ok((hits / queries).min(1.0)) } else { Err(Missing::NoSample) };
    let hits = growth(|look| look.prefix_hits);
    let prefix_hit_share = hits.and_then(|hits| share(hits, growth(|look| look.prefix_queries)?));
    Ok(Added {
        begin_s: begin.since(from).as_secs_f64(),
        seconds: end.since(*begin).as_secs_f64(),
        preemptions: growth(|look| look.preemptions).into(),
        prefix_hit_share: prefix_hit_share.into(),
        prompt_tokens: growth(|look| look.prompt_tokens).into(),
        generation_tokens: growth(|look| look.generation_tokens).into(),
        received_tokens: Reading::none(Missing::NotMeasured),
    })
}

/// By how much a total grew. One that fell is of another process: the server was started anew.
fn growth(totals: impl Iterator<Item = Reading<f64>>) -> Result<f64, Missing> {
    let totals = totals.map(Reading::ok).collect::<Result<Vec<_>, _>>()?;
    let falls = totals.windows(2).any(|pair| pair[1] < pair[0]);
    match (totals.first(), totals.last()) {
        (Some(first), Some(last)) if !falls => Ok(last - first),
        _ => Err(Missing::Failed),
    }
}

fn mean_max(readings: impl Iterator<Item = Reading<f64>>) -> Reading<MeanMax> {
    let (mut count, mut sum, mut max, mut why) = (0_u32, 0.0, f64::NEG_INFINITY, Missing::NoSample);
    for reading in readings {
        match reading.ok() {
            Ok(value) => (count, sum, max) = (count + 1, sum + value, f64::max(max, value)),
            Err(missing) => why = missing,
        }
    }
    if count == 0 { Reading::none(why) } else { Reading::Value(MeanMax { mean: sum / f64::from(count), max }) }
}

fn coverage(looks: impl Iterator<Item = Nanos>, from: Nanos, to: Nanos) -> f64 {
    let (mut covered, mut until) = (Nanos::ZERO, from);
    for at in looks {
        let begin = Nanos(at.0.saturating_sub(REACH.0)).max(until);
        let end = (at + REACH).min(to);
        covered += end.since(begin);
        until = until.max(end);
    }
    covered.as_secs_f64() / to.since(from).as_secs_f64().max(f64::MIN_POSITIVE)
}
