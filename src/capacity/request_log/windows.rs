//! How many calls fell into each window of a length: aligned to the clock, empty ones included.

use crate::record::demand::WindowRates;
use crate::stats::counted::Counted;

/// Counts of windows of one length, of stamps in rising order.
#[derive(Clone, Debug)]
pub struct Windows {
    /// Nanoseconds.
    length: i64,
    /// The window that is open: its number, its end, calls in it.
    open: Option<Open>,
    closed: Counted,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    number: i64,
    end: i64,
    calls: u64,
}

impl Windows {
    /// Windows of so many seconds.
    #[must_use]
    pub fn of_seconds(seconds: i64) -> Self {
        Self { length: seconds * 1_000_000_000, open: None, closed: Counted::default() }
    }

    /// Adds a call.
    pub fn add(&mut self, at: i64) {
        if let Some(open) = &mut self.open
            && at < open.end
        {
            open.calls += 1;
            return;
        }
        let number = at.div_euclid(self.length);
        if let Some(before) = self.open {
            self.closed.add(before.calls);
            // Between the two nothing happened, and that counts.
            self.closed.add_many(0, (number - before.number - 1) as u64);
        }
        let end = number.saturating_add(1).saturating_mul(self.length);
        self.open = Some(Open { number, end, calls: 1 });
    }

    /// Calls of every window from the first to the last that has one.
    #[must_use]
    pub fn counts(&self) -> Counted {
        let mut counts = self.closed.clone();
        if let Some(open) = self.open {
            counts.add(open.calls);
        }
        counts
    }

    /// As rates; `None` of no calls.
    #[must_use]
    pub fn rates(&self) -> Option<WindowRates> {
        rates(&self.counts(), self.length as f64 / 1e9)
    }
}

/// Rates from how often a window of so many seconds had how many calls; `None` of no windows.
#[must_use]
pub fn rates(counts: &Counted, seconds: f64) -> Option<WindowRates> {
    let mean = counts.mean()?;
    let rate = |calls: f64| calls / seconds;
    let of = |q| counts.quantile(q).map_or(0.0, rate);
    let max = counts.max().unwrap_or(0) as f64;
    Some(WindowRates {
        window_s: seconds,
        windows: counts.count(),
        mean_rps: rate(mean),
        p50_rps: of(0.50),
        p95_rps: of(0.95),
        p99_rps: of(0.99),
        max_rps: rate(max),
        peak_over_mean: max / mean,
        poisson_peak_over_mean: poisson_largest(mean, counts.count()) / mean,
        index_of_dispersion: counts.index_of_dispersion().unwrap_or(0.0),
    })
}

/// What the largest of so many Poisson counts of that mean typically is: the quantile at `1 - 1 / windows`. A low rate has a
/// large one by chance alone.
fn poisson_largest(mean: f64, windows: u64) -> f64 {
    let beyond = 1.0 / (windows as f64 + 1.0);
    if mean > 500.0 {
        // The tail of a normal distribution, to its first order: ln(1/p) = z^2 / 2.
        return mean + (2.0 * (1.0 / beyond).ln()).sqrt() * mean.sqrt();
    }
    let (mut k, mut term) = (0.0, (-mean).exp());
    let mut at_most = term;
    while 1.0 - at_most > beyond && k < 10_000.0 {
        k += 1.0;
        term *= mean / k;
        at_most += term;
    }
    k
}
