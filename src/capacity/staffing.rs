//! How many servers keep the wait short: Erlang's formula, and the square-root rule that it comes down to for many servers.
//!
//! Both take calls that arrive as a Poisson process and servers of one speed. A replica of a language model slows down as it fills, so
//! these stand beside the measured rate and never in its place (`capacity::state_queue` has the slowing).

/// Probability that a call waits with `servers` servers and `offered` busy ones on average, 0..=1; 1 where the load is too much.
///
/// Erlang C through Erlang B's recursion `B_k = a B_{k-1} / (k + a B_{k-1})`, which overflows nowhere.
#[must_use]
pub fn erlang_c(servers: u64, offered: f64) -> f64 {
    if offered >= servers as f64 {
        return 1.0;
    }
    let blocked = (1..=servers).fold(1.0, |blocked, k| offered * blocked / (k as f64 + offered * blocked));
    let busy = offered / servers as f64;
    blocked / (1.0 - busy * (1.0 - blocked))
}

/// Mean wait over mean service time; infinite where the load is too much.
#[must_use]
pub fn mean_wait(servers: u64, offered: f64) -> f64 {
    if offered >= servers as f64 { f64::INFINITY } else { erlang_c(servers, offered) / (servers as f64 - offered) }
}

/// Probability that a call waits longer than `wait` mean service times.
#[must_use]
pub fn waits_longer(servers: u64, offered: f64, wait: f64) -> f64 {
    if offered >= servers as f64 { 1.0 } else { erlang_c(servers, offered) * (-(servers as f64 - offered) * wait).exp() }
}

/// The mean wait where neither arrivals nor service are Poisson, by Allen and Cunneen: that of `mean_wait` times
/// `(ca^2 + cs^2) / 2`, with the coefficients of variation of gaps and of service times.
#[must_use]
pub fn mean_wait_of_bursts(servers: u64, offered: f64, gap_cv: f64, service_cv: f64) -> f64 {
    mean_wait(servers, offered) * (gap_cv * gap_cv + service_cv * service_cv) / 2.0
}

/// Servers by the square-root rule: `a + beta sqrt(a)`.
#[must_use]
pub fn square_root(offered: f64, beta: f64) -> f64 {
    offered + beta * offered.sqrt()
}
