//! What queueing theory says about the simple laws: answers that no simulation of ours had a part in.
//!
//! Loads are utilisations in 0..1, times are in units of the mean service time. Batching has no such formula; its
//! truth is a long simulation, kept in a file with the command that made it.

/// P(sojourn > `limit`) in an M/M/1 queue in order of arrival: exp(-(1 - load) limit).
///
/// Source: Kleinrock, "Queueing Systems" volume 1, section 5.12.
#[must_use]
pub fn mm1_sojourn_over(load: f64, limit: f64) -> f64 {
    if load >= 1.0 { 1.0 } else { (-(1.0 - load) * limit).exp() }
}

/// Erlang's C: P(an arrival waits) in M/M/c at `load` a server, `servers` 1 or more.
///
/// Through Erlang's B by its recursion, which neither overflows nor cancels.
#[must_use]
pub fn erlang_c(servers: u32, load: f64) -> f64 {
    if load >= 1.0 {
        return 1.0;
    }
    let offered = load * f64::from(servers);
    let blocked = (1..=servers).fold(1.0, |blocked, server| offered * blocked / (f64::from(server) + offered * blocked));
    blocked / (1.0 - load * (1.0 - blocked))
}

/// P(sojourn > `limit`) in M/M/c at `load` a server.
///
/// The wait is 0 with probability 1 - C, else exponential with rate c (1 - load); the service, exponential with rate 1,
/// is added. Source: Gross and Harris, "Fundamentals of Queueing Theory", section 2.3.
#[must_use]
pub fn mmc_sojourn_over(servers: u32, load: f64, limit: f64) -> f64 {
    if load >= 1.0 {
        return 1.0;
    }
    let waits = erlang_c(servers, load);
    let drain = f64::from(servers) * (1.0 - load);
    let served_only = (-limit).exp();
    // P(wait + service > t), wait exponential; at drain = 1 both rates are equal and the sum is Erlang-2.
    let waited = if (drain - 1.0).abs() < 1e-6 {
        (1.0 + limit) * served_only
    } else {
        (drain * served_only - (-drain * limit).exp()) / (drain - 1.0)
    };
    (1.0 - waits) * served_only + waits * waited
}

/// P(wait > `limit`) in M/D/1.
///
/// Erlang's sum (1909) alternates and cancels; this is Crommelin's form with positive terms only: with T the whole part
/// of `limit`, P(wait <= limit) = exp(-load (T - limit)) sum over j = 0..=T of P(at most j left behind) Poisson(T - j),
/// as in Franx, "A simple solution for the M/D/c waiting time distribution", Operations Research Letters 29 (2001).
#[must_use]
pub fn md1_wait_over(load: f64, limit: f64) -> f64 {
    if load >= 1.0 {
        return 1.0;
    }
    if limit < 0.0 {
        return 1.0;
    }
    let whole = limit.floor() as usize;
    // P(j in the system), by the embedded chain: p[j+1] a0 = p[j] - p[0] a[j] - sum over i = 1..=j of p[i] a[j - i + 1].
    let arrivals = poisson(load, whole + 2);
    let mut present = vec![1.0 - load];
    for j in 0..=whole + 1 {
        let mut next = present[j] - present[0] * arrivals[j];
        for i in 1..=j {
            next -= present[i] * arrivals[j - i + 1];
        }
        present.push((next / arrivals[0]).max(0.0));
    }
    // Q[j] = P(at most j waiting, the one in service not counted) = sum of present[0..=j + 1].
    let mut cumulative = 0.0;
    let waiting: Vec<f64> = (0..=whole)
        .map(|j| {
            cumulative = if j == 0 { present[0] + present[1] } else { cumulative + present[j + 1] };
            cumulative
        })
        .collect();
    // With u = limit's part of the next whole unit: P(wait <= limit) = sum over j of Q[T - j] Poisson(j; load u), u = T + 1 - limit.
    let rest = (whole + 1) as f64 - limit;
    let within = poisson(load * rest, whole);
    let at_most: f64 = (0..=whole).map(|j| waiting[whole - j] * within[j]).sum();
    (1.0 - at_most).clamp(0.0, 1.0)
}

/// Poisson probabilities of 0..=`last`.
fn poisson(mean: f64, last: usize) -> Vec<f64> {
    let mut terms = vec![(-mean).exp()];
    for k in 1..=last {
        terms.push(terms[k - 1] * mean / k as f64);
    }
    terms
}

/// The highest load in 0..1 at which `over` (rising in the load) is at most `allowed`; 0 where none is.
#[must_use]
pub fn highest_load(allowed: f64, over: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    if over(1e-9) > allowed {
        return 0.0;
    }
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if over(middle) <= allowed {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}
