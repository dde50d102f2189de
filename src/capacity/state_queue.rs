//! A replica that slows down as it fills, as a birth-death chain: the model of llm-d's queue analysis, with three parameters.
//!
//! An iteration with `n` calls takes `T(n) = alpha + n (beta tc + gamma tm)` milliseconds, `tc = (in + out) / (out + 1)`, `tm = in + out / 2`. A call needs a
//! prefill of `T(n) + (beta + gamma) in` and `out` decodes of `T(n) + beta + gamma tm`. Poisson arrivals, exponential service: means only.

use serde::Serialize;

/// One replica and the calls that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StateQueue {
    /// Milliseconds of an iteration that does nothing.
    pub alpha: f64,
    /// Milliseconds per token computed.
    pub beta: f64,
    /// Milliseconds per token of context read.
    pub gamma: f64,
    /// Calls in service at most.
    pub max_batch: u32,
    /// Calls that may wait.
    pub max_queue: u32,
    /// Mean prompt tokens.
    pub input_tokens: f64,
    /// Mean answer tokens.
    pub output_tokens: f64,
}

/// What a rate of arrivals comes to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Steady {
    /// Calls/s that are served; less than offered where some find the queue full.
    pub served_rps: f64,
    /// Mean calls in service.
    pub in_service: f64,
    /// Mean wait before service, milliseconds.
    pub wait_ms: f64,
    /// Mean time to first token, milliseconds.
    pub ttft_ms: f64,
    /// Mean time per token after it, milliseconds.
    pub itl_ms: f64,
}

impl StateQueue {
    fn mean_context(&self) -> f64 {
        self.input_tokens + self.output_tokens / 2.0
    }

    fn iteration_ms(&self, batch: f64) -> f64 {
        let computed = (self.input_tokens + self.output_tokens) / (self.output_tokens + 1.0);
        self.alpha + batch * (self.beta * computed + self.gamma * self.mean_context())
    }

    fn prefill_ms(&self, batch: f64) -> f64 {
        self.iteration_ms(batch) + (self.beta + self.gamma) * self.input_tokens
    }

    fn decode_ms(&self, batch: f64) -> f64 {
        self.iteration_ms(batch) + self.beta + self.gamma * self.mean_context()
    }

    /// Calls per millisecond that leave while `batch` are in service.
    fn rate(&self, batch: f64) -> f64 {
        batch / (self.prefill_ms(batch) + self.output_tokens * self.decode_ms(batch))
    }

    /// The highest rate that a full batch serves, calls/s.
    #[must_use]
    pub fn full_rps(&self) -> f64 {
        self.rate(f64::from(self.max_batch)) * 1000.0
    }

    /// The steady state at `rps` calls/s; `None` of no calls.
    #[must_use]
    pub fn at(&self, rps: f64) -> Option<Steady> {
        if !(rps > 0.0 && rps.is_finite()) || self.max_batch == 0 {
            return None;
        }
        let arrivals = rps / 1000.0;
        let states = self.max_batch + self.max_queue;
        // Logarithms of unnormalised probabilities: a long queue at low load would underflow.
        let mut logs = vec![0.0_f64];
        for state in 1..=states {
            let leaving = self.rate(f64::from(state.min(self.max_batch)));
            logs.push(logs[state as usize - 1] + (arrivals / leaving).ln());
        }
        let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mean =
            |of: &dyn Fn(u32) -> f64| weights.iter().enumerate().map(|(state, weight)| weight / total * of(state as u32)).sum::<f64>();
        let in_system = mean(&f64::from);
        let in_service = mean(&|state| f64::from(state.min(self.max_batch)));
        let served = arrivals * (1.0 - weights[states as usize] / total);
        // Little's law, twice.
        let service_ms = in_service / served;
        let wait_ms = in_system / served - service_ms;
        let prefill_ms = self.prefill_ms(in_service);
        let itl_ms = (service_ms - prefill_ms) / self.output_tokens;
        Some(Steady { served_rps: served * 1000.0, in_service, wait_ms, ttft_ms: wait_ms + prefill_ms + itl_ms, itl_ms })
    }

    /// The highest rate, calls/s, at which mean TTFT and ITL stay within both limits, found by halving to a ten-thousandth; `None` where
    /// even one call alone does not.
    #[must_use]
    pub fn within(&self, ttft_ms: f64, itl_ms: f64) -> Option<f64> {
        let holds = |rps: f64| self.at(rps).is_some_and(|steady| steady.ttft_ms <= ttft_ms && steady.itl_ms <= itl_ms);
        let most = self.full_rps() * 0.999;
        let (mut low, mut high) = (most * 1e-4, most);
        if !holds(low) {
            return None;
        }
        if holds(high) {
            return Some(high);
        }
        while high - low > most * 1e-4 {
            let middle = f64::midpoint(low, high);
            if holds(middle) { low = middle } else { high = middle }
        }
        Some(low)
    }
}
