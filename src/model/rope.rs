//! Rotary positions: how fast each pair of a head's dimensions turns.
//!
//! Pure arithmetic; the rotation itself is the device's.

/// Rotary position embedding of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// Base of the wavelengths.
    pub theta: f64,
    /// How a context longer than the one first trained on was reached.
    pub scaling: RopeScaling,
}

/// A stretching of the wavelengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Every frequency divided by the factor (position interpolation, Chen et al. 2023).
    Linear {
        /// Above 0.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are stretched, short ones kept, those between blended.
    Llama3 {
        /// By how much the long ones are stretched.
        factor: f64,
        /// Wavelengths above original length / this are stretched.
        low_freq_factor: f64,
        /// Wavelengths below original length / this are kept.
        high_freq_factor: f64,
        /// Context first trained on, tokens.
        original_max_position_embeddings: f64,
    },
}

impl Rope {
    /// Radians per position of each of the `head_dim / 2` pairs (dimension i turns with i + head_dim / 2).
    #[must_use]
    pub fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let frequency = |pair: usize| self.theta.powf(-(2.0 * pair as f64) / head_dim as f64);
        (0..head_dim / 2).map(|pair| self.scaling.stretch(frequency(pair)) as f32).collect()
    }
}

impl RopeScaling {
    /// The Llama 3 rule is `_compute_llama3_parameters` of transformers' `modeling_rope_utils.py`.
    fn stretch(self, frequency: f64) -> f64 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let turns = original_max_position_embeddings * frequency / std::f64::consts::TAU;
                let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}
