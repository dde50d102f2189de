//! The costs of a law as unknowns, and what was measured as equations between them.

use crate::clock::Nanos;
use crate::queueing::bands::{BANDS, ENDS, TokenPrices};
use crate::queueing::closed_loop::StepMix;
use crate::queueing::law::BatchingLaw;
use crate::stats::least_squares;

/// A step, a sequence, a prompt token, a cached token, the way, and a token by band.
const TERMS: usize = 5 + BANDS;

/// What the equations can tell apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// Cached tokens from sequences.
    pub(super) cached: bool,
    /// The way from the work on a prompt.
    pub(super) way: bool,
    /// The band that also stands for those beyond: steps were not longer.
    pub(super) last_band: usize,
}

impl Told {
    /// The last band that steps of up to `longest` tokens tell something of: they go on to twice where it begins.
    pub(super) fn last_band(longest: f64) -> usize {
        ENDS.iter().take_while(|end| longest >= 2.0 * **end as f64).count()
    }
}

/// Equations, each divided by what was measured, so that each is off by a share.
#[derive(Debug)]
pub(super) struct Equations {
    told: Told,
    rows: Vec<([f64; TERMS], f64)>,
}

impl Equations {
    pub(super) fn new(told: Told) -> Self {
        Self { told, rows: Vec::new() }
    }

    /// `steps` steps that are `all` together took `seconds`, and the way once where `on_the_way`.
    pub(super) fn add(&mut self, steps: f64, all: &StepMix, on_the_way: bool, seconds: f64) {
        let unless = |told: bool, value: f64| if told { value } else { 0.0 };
        let way = unless(self.told.way && on_the_way, 1.0);
        let mut terms = [0.0; TERMS];
        terms[..5].copy_from_slice(&[steps, all.decoding, all.prefill, unless(self.told.cached, all.attended), way]);
        for (band, tokens) in all.by_band.iter().enumerate() {
            terms[5 + band.min(self.told.last_band)] += tokens;
        }
        self.rows.push((terms.map(|term| term / seconds), 1.0));
    }

    /// The fewest costs that explain what was measured, with `limits` of a batch; `None` where nothing determines them.
    pub(super) fn solve(&self, limits: &BatchingLaw) -> Option<(BatchingLaw, Nanos)> {
        let terms = least_squares::fewest_costs(&self.rows)?;
        let [step_s, per_sequence_s, per_prefill_token_s, per_kv_token_s, way_s] = std::array::from_fn(|term| terms[term]);
        let per_token_s = TokenPrices(std::array::from_fn(|band| terms[5 + band.min(self.told.last_band)]));
        let law = BatchingLaw { step_s, per_sequence_s, per_prefill_token_s, per_kv_token_s, per_token_s, ..*limits };
        // One that decodes alone takes time.
        (law.step_of(1, 0, 0) > 0.0).then_some((law, Nanos::from_secs_f64(way_s)))
    }
}
