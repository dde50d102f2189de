//! What a token of a step costs where that depends on how many the step has.
//!
//! Engines do not take twice as long for twice as many tokens: a GPU reads its weights once for a few hundred of them, and processors
//! have one kernel for a few rows and another for many. Between the ends of bands, each four times as far as the one before, a token
//! more has one price.

use serde::{Deserialize, Serialize};

/// How many bands there are.
pub const BANDS: usize = 6;
/// The last token, counted from 1, of each band but the last, which has no end.
pub const ENDS: [u64; BANDS - 1] = [4, 16, 64, 256, 1024];

/// Seconds that a token adds to a step, by its band.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenPrices(pub [f64; BANDS]);

impl TokenPrices {
    /// Seconds of all tokens of a step that has so many.
    #[inline]
    #[must_use]
    pub fn of(&self, tokens: u64) -> f64 {
        let (mut seconds, mut begin) = (0.0, 0);
        for (band, price) in self.0.iter().enumerate() {
            let end = ENDS.get(band).map_or(tokens, |end| tokens.min(*end));
            seconds += price * (end - begin) as f64;
            if end == tokens {
                break;
            }
            begin = end;
        }
        seconds
    }

    /// The same, each `factor` times as high.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self(self.0.map(|price| price * factor))
    }

    /// Prices and the last token that each holds for, neighbours of one price together; `None` for no end.
    pub fn steps(&self) -> impl Iterator<Item = (f64, Option<u64>)> {
        (0..BANDS).filter(|band| self.0.get(band + 1) != Some(&self.0[*band])).map(|band| (self.0[band], ENDS.get(band).copied()))
    }
}

/// How many of the tokens of a step lie in each band.
#[must_use]
pub fn by_band(tokens: u64) -> [u64; BANDS] {
    std::array::from_fn(|band| {
        let begin = band.checked_sub(1).map_or(0, |before| ENDS[before]);
        let end = ENDS.get(band).map_or(tokens, |end| tokens.min(*end));
        end.saturating_sub(begin)
    })
}

#[cfg(test)]
mod tests {
    use super::{TokenPrices, by_band};

    #[test]
    fn the_price_of_all_tokens_is_that_of_each_in_its_band() {
        let prices = TokenPrices([2.0, 1.0, 0.5, 0.25, 0.125, 4.0]);
        for tokens in [0, 1, 4, 5, 16, 17, 64, 100, 256, 1024, 1025, 5000] {
            let summed: f64 = by_band(tokens).iter().zip(prices.0).map(|(count, price)| *count as f64 * price).sum();
            assert!((prices.of(tokens) - summed).abs() < 1e-9, "{tokens} tokens");
            assert_eq!(by_band(tokens).iter().sum::<u64>(), tokens);
        }
        assert!((prices.of(5) - 9.0).abs() < 1e-12);
    }

    #[test]
    fn neighbours_of_one_price_are_one_step() {
        let steps: Vec<_> = TokenPrices([2.0, 1.0, 1.0, 1.0, 1.0, 1.0]).steps().collect();
        assert_eq!(steps, [(2.0, Some(4)), (1.0, None)]);
        assert_eq!(TokenPrices::default().steps().collect::<Vec<_>>(), [(0.0, None)]);
    }
}
